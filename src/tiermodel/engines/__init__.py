"""Engines sort and stream rows; what is computed on the stream is the same compiled pass on every engine."""
