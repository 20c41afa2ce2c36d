"""The tab "Position map"."""
