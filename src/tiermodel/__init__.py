"""Customer tiers."""
