"""What to apply: samples → activations → direction → null space → gate → calibration → bundle."""
