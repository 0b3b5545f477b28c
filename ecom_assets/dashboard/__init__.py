"""What people look at: a Streamlit application of four pages over the query service.

``figures`` derives from answers the numbers that a chart shows, ``charts`` draws them, ``common`` is what all pages
share, ``views/`` holds a page each. Nothing is computed from the tables here; see ``ecom_assets.serving``. What is
shown of a data set is in its declaration; see ``docs/charts.md``.
"""
