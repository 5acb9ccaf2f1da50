"""The bundle, a folder with everything that a score depends on, and its model card."""
