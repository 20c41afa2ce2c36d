"""The tab "Needle test"."""
