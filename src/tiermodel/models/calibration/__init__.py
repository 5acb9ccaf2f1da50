"""The mean of the coming window: log-odds, the base rate, and what recent windows tell of it."""
