"""What Dagster sees: a folder per layer, in the order the data flows."""
