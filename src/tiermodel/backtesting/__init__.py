"""Play the past again, and judge the models by what then happened."""
