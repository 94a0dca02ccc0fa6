"""Random views of images, drawn on the training device."""
