"""Predictions about customers: churn, value, upgrade and the probability models they are measured against."""
