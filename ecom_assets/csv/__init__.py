"""CSV files: reading, exact parsing, cutting and writing; the layers raw, expanded and chunked."""
