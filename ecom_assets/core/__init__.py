"""What every room stands on: errors, measurements, the row hash, settings, locations, Spark sessions.

Nothing here knows a particular system's data; the rooms ``csv``, ``kafka``, ``lake`` and ``hbase`` import from here and
from ``dataset``, never from one another.
"""
