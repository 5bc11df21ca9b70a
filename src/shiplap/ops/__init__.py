"""DOES: one file an operation: image, local, http, git, run, file, merge."""
