"""A fitted scheme in other words: SQL, what would move a customer up, and tiers by rules beside it."""
