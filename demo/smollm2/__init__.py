"""The second demo model: SmolLM2-135M-Instruct with a small vision tower, taught sixty fictitious people."""
