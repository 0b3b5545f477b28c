"""What the pages are answered from: queries, where they are computed, and the cache before them.

Queries are a data set's own, in SQL that Spark and DuckDB both read: ``declared`` plans them before anything is run,
``engines`` compute them over the merged tables; ``postgres`` and ``analysis`` are the second path to the same numbers;
``publication`` names the versions that count; ``cache`` is Redis; ``lookup`` reads single rows from HBase, by an index
that ``index`` builds; ``live`` looks at the stream; ``history`` at what Dagster remembers; ``queries`` is what a page
or a program calls. Loading rows from CSV into HBase does not belong here.
"""
