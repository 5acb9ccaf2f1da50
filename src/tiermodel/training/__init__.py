"""Training: everything that a score depends on, fitted on rows before one date."""
