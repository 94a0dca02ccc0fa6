"""Where the bytes of a source are: folders, archives, URLs."""
