"""The learners that the models blend, and their preprocessing, weights and splits by time."""
