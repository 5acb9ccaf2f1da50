"""Tracking runs, registering models and promoting them, with MLflow."""
