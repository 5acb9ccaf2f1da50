"""Buy-till-you-die models, and what they expect of a customer."""
