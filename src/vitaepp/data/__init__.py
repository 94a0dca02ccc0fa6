"""Data on disk between the steps: stores, embeddings, runs; also tables, grids and batches."""
