"""HBase: row layout, HFiles, loaders, scans and administration; the layer hbase."""
