"""From one sorted stream of rows to snapshots of customers, at any number of dates, in one pass."""
