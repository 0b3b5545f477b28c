"""The declaration of a data set: its tables, keys, references and layouts. It imports no other room."""
