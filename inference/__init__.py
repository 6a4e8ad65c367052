"""Run a base or a checkpoint: load it, build its inputs, read its hidden states, gates and replies."""
