"""LISTS: which packages a file tree holds."""
