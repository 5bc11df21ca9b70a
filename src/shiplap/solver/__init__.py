"""DECIDES: cache keys, scheduling: a state machine with events in, instructions out, no I/O."""
