"""Running a bundle: `model` (the embedding), `protocol`, and a file for each backend; imported by full name."""
