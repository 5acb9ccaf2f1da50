"""Whether the data is good enough, and whether it holds personal data."""
