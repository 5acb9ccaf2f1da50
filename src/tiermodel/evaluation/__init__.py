"""How good predictions are: metrics, bootstrap, attributions and audits."""
