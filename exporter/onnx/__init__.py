"""Steering outside PyTorch: write it into ONNX decoder graphs, and export such graphs from a base."""
