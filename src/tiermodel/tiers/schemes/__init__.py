"""Schemes as data: their schema, what a kind answers, the registered kinds, and the reader of scheme files."""
