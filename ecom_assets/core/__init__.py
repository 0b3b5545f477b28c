"""What every room builds on: layer protocol, engine, context, books, errors, locks, row hash, settings, locations.

Nothing here knows a particular system's data; the rooms ``csv``, ``kafka``, ``lake`` and ``hbase`` import from here and
from ``dataset``, never from one another.
"""
