"""Training: `settings` (no torch), `augment`, `loop`, `state`; each imported by its full name."""
