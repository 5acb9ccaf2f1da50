"""Segments: unordered clusters of customers with similar behaviour."""
