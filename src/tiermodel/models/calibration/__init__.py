"""Calibration of log-odds, and the forecast of the coming window's level from recent windows."""
