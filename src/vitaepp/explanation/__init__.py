"""What an encoder and a classifier look at: maps of patches, attribution, and whether they hold."""
