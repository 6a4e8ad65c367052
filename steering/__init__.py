"""What to apply: records → activations → direction → null space → gate → calibration → bundle."""
