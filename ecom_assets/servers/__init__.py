"""The servers: Kafka, HBase, its Thrift server, Spark and more, as child processes or one in the foreground.

``stack.py`` starts, finds and stops; ``servers.py`` says what each server is and how it is
configured, ``serving.py`` the same for PostgreSQL and Redis, ``cluster.py`` for many servers of a kind
and ``orchestration.py`` for Dagster; ``serve.py`` is one of them in the foreground; ``probes.py`` asks
them whether they do their work; ``process.py`` knows processes, ports
and records on disk; ``jars`` brings the jars; ``hbase_admin.py`` drives HBase's own Admin;
``commands.py`` is the command line.
"""
