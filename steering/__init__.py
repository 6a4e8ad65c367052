"""From records to a bundle: hidden states → direction → null space → gate → calibration → bundle."""
