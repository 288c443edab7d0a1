"""Data sets: reading them, and the generator of the demo set."""
