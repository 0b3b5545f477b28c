"""The embedded stack: Kafka, HBase, its Thrift server and Spark Connect as child processes.

``stack.py`` starts, finds and stops; ``servers.py`` says what each server is and how it is
configured, ``serving.py`` the same for PostgreSQL and Redis; ``process.py`` knows processes, ports
and records on disk; ``jars`` brings the jars; ``hbase_admin.py`` drives HBase's own Admin;
``commands.py`` is the command line.
"""
