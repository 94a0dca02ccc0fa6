"""ViT-AE++ for medical images."""
