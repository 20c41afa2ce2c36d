"""The tab "Calibration"."""
