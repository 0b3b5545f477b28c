"""Java: the runtime, the locked jars, and programs that run on them.

What belongs here: what both the servers and the rooms that call Java programs need; ``jars`` fetches the jars,
``program`` runs one program to its end, ``clients`` has the settings of Hadoop's and HBase's clients. What does not:
servers (see ``servers``), and what any program is started for.
"""
