"""The erasure of one person from what was written: the ledger, scores, lists, exports and the folders of runs."""
