"""An e-commerce lakehouse as a Dagster project: CSV to Kafka, Spark, Delta and HBase, and a proof that no row is lost."""
