"""Scores over HTTP: one customer or a few thousand, from feature rows or from raw rows."""
