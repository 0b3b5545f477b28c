"""An e-commerce lakehouse as a Dagster project: CSV to Kafka, Spark, Delta and HBase, with every layer verified."""
