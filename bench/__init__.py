"""Times shiplap beside the builders found on this machine, on the same work, in turn."""
