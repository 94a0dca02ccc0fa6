"""What one training step does."""
