"""What came of the tiers: outcomes of past gradings."""
