"""Pure modules: patches, positions, transformer, autoencoder, VGG; no training."""
