"""WALKS: file trees: rooted path resolution, patterns, walk, content digest, copy."""
