"""Schemes as data, frozen at fit, and the levels they assign."""
