"""Methods: what one training step does, from a batch of images to a loss."""

from vitaepp.methods.vitaepp import Method, StepOutput, ViTAE, build_method, encoder_shape

__all__ = ["Method", "StepOutput", "ViTAE", "build_method", "encoder_shape"]
