"""What every room stands on: layers and the engine, measurements, the row hash, settings, locations, connections.

Nothing here knows a particular system's data; the rooms ``csv``, ``kafka``, ``lake`` and ``hbase`` import from here and
from ``dataset``, never from one another.
"""
