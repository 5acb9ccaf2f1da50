"""The bundle: everything that a score depends on, as one folder, and its model card."""
