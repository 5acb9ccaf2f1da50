"""The tables of a project: read strictly, checked against a contract, united into one history."""
