"""Readers of files, workbooks and databases."""
