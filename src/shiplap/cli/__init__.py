"""One file a command. Only this room prints."""
