"""The bundle: what to apply, and nothing about whom. It is read and written without torch."""
