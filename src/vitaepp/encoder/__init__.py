"""The frozen feature extractor that people keep, and embedding a store with it."""
