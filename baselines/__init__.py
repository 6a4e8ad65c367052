"""Other ways to forget, for comparison; one command makes each (docs/baselines.md)."""
