"""The systems that assets talk to, as Dagster resources: one file per system."""
