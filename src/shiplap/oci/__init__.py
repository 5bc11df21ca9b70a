"""NAMES: digest, reference, platform, descriptor, manifest, index, image config."""
