"""Writes one page about what evaluations found, for a reader who did not run them: words first, then figures."""
