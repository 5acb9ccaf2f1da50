"""Predictions about customers: churn, value, future tier, upgrade, conversion and potential."""
