"""How it travels outside PyTorch: steering written into ONNX decoder graphs, and the export of such graphs."""
