"""ISOLATES: runs one process over a root filesystem."""
