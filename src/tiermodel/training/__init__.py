"""Fit everything a score depends on, and note what it was made from."""
