"""What will be made of a source, decided before it is read as a whole."""
