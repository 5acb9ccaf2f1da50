"""Engines sort and stream the rows; the compiled pass over the stream is the same on every engine."""
