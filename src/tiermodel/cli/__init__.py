"""The command line: one function for each verb."""
