"""PACKS: tree difference, tar writing and reading, whiteouts, compression."""
