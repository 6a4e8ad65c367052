"""The four files that travel with every exported checkpoint, and that the tool itself steers with.

They import torch, transformers, safetensors and the standard library, and nothing of ours.
"""
