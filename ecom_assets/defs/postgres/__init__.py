"""See ``assets.py``."""
