"""The seeded shop with known truth."""
