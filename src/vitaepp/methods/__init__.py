"""Methods: what one training step does, from a batch of images to a loss."""

from vitaepp.methods.base import Method, StepOutput
from vitaepp.methods.registry import backbone_shape, build_method
from vitaepp.methods.vitaepp import ViTAE

__all__ = ["Method", "StepOutput", "ViTAE", "backbone_shape", "build_method"]
