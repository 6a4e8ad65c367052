"""The life of a request, from a claim to a letter."""
