"""The tier ledger: who was in which tier from when to when, and the movement between tiers."""
