"""Images wherever they are: found, copied, joined, compared."""
