"""The kind of scheme that learns its levels, from past outcomes, labels or clusters."""
