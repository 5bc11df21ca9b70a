"""PLANS: operation structs, nodes (content address), walk, prune, draw."""
