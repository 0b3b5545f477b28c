"""The servers: Kafka, HBase, its Thrift server, Spark and more, as child processes or one in the foreground.

``stack`` starts, finds and stops those of a home; each kind has a module (``kafka``, ``hbase``, ``thrift``, ``spark``,
``postgres``, ``redis``, ``dashboard``), the cluster's are in ``nodes``, and ``kinds`` lists them all; ``serve`` is one
of them in the foreground; ``probes`` asks whether one works; ``process`` knows processes, ports and records on disk.
Nothing here knows the data.
"""
