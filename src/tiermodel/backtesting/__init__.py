"""Backtests: what each model would have predicted at past dates, beside simple baselines."""
