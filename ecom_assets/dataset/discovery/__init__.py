"""``ecom init``: a declaration of CSV files that have none yet, from types and keys to the text of its files."""
