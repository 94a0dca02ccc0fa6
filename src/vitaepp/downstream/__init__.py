"""What is made with a trained encoder: classifiers for new patients."""
