"""How good an embedding is: linear classifiers, reconstruction metrics, statistics."""
