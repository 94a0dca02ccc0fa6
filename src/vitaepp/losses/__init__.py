"""The four losses of ViT-AE++: reconstruction, perceptual, edge, contrastive."""
