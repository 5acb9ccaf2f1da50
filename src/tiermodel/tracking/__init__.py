"""Runs, registry and gate of models."""
