"""The project file: one YAML is one frozen `Project`."""
