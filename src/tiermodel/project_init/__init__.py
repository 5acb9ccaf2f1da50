"""A project file from raw exports: what their columns mean, by names and by values, and settings that fit the data."""
