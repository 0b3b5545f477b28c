"""The work itself: plain functions that carry rows from layer to layer, without Dagster.

A module per layer or concern. Each layer has a function that builds it and one that
measures what it really holds (``Measure``); assets and checks are thin shells around them.
"""
