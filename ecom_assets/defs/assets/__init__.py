"""Assets, by what they are: layers, reconciliation, serving, analysis."""
