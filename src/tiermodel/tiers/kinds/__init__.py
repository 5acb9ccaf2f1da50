"""The kinds of scheme, one file each, and what they share: cut points, points of an index, terms of SQL."""
