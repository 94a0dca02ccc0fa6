"""What lies on disk between the steps: stores, embeddings, runs; tables, grids and batches."""
