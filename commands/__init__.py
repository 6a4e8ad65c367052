"""One file a command: its options, one call into the library, and what is said about the result."""
