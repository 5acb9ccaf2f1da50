"""Readers of files, workbooks, databases and frames."""
