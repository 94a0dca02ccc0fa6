"""The losses, one equation a file: the four of ViT-AE++, and InfoNCE of MoCo-v3."""
