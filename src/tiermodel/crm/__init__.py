"""Scores for the CRM: mapped columns of the customers that changed, in files that its import takes."""
