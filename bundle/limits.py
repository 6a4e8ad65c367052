"""What the method does not do, and what harnesses miss: written once, for every page that says it."""

from __future__ import annotations

LIMITS = (
    "suppresses at inference; the knowledge stays in the weights bit for bit; this is not deletion and no certificate "
    "of erasure; anyone who holds the files can switch it off."
)

# lmms-eval's adapters name a concrete class, and VLMEvalKit a class per model: neither reads auto_map.
HARNESS_WARNING = (
    "In other harnesses, avoid adapters that load the native class and ignore auto_map (lmms-eval's llava_hf and "
    "qwen2_5_vl, every model of VLMEvalKit): they would run without the steering, and an exported checkpoint refuses "
    "them. In lmms-eval use --model huggingface --model_args pretrained=DIR,trust_remote_code=True."
)
