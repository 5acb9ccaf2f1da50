"""Snapshots of customers at any number of dates, from one pass over one sorted stream of rows."""
