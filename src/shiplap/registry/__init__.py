"""SPEAKS the distribution protocol: transport, authority, pull, push; an in-memory registry."""
