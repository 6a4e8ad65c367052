"""One file for each command: its options, one call into the library, and how the result is printed."""
