"""Raw files to a Store."""
