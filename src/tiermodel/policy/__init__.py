"""Service policy: what each level gets, who has room for it, and who gets which action under a budget."""
