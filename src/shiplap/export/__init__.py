"""DELIVERS: image, index, OCI layout, docker archive, local tree, tar, push, cache, attestations."""
