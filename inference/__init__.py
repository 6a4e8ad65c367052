"""Running a checkpoint: loading it, building its inputs, reading its replies. Shared by steering and evaluation."""
