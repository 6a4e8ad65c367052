"""Other ways to forget, made by one command each, to be compared with: docs/baselines.md."""
