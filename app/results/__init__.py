"""The tab "Results"."""
