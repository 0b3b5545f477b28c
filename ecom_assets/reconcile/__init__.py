"""Reconciliation: comparing the layers' measurements, the report, and checks of data quality."""
