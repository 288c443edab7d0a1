"""Two slots for models: a new one is tried, switched to, and rolled back by itself."""
