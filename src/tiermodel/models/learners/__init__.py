"""The learners that the models blend, and what they share: preprocessing, weights, splits by time."""
