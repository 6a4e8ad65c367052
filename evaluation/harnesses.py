"""Which adapters of other harnesses cannot run an exported checkpoint, in one sentence for every place that says it."""

from __future__ import annotations

# lmms-eval's adapters name a concrete class, and VLMEvalKit a class per model: neither reads auto_map.
HARNESS_WARNING = (
    "In other harnesses, avoid adapters that load the native class and ignore auto_map (lmms-eval's llava_hf and "
    "qwen2_5_vl, every model of VLMEvalKit): they would run without the steering, and an exported checkpoint refuses "
    "them. In lmms-eval use --model huggingface --model_args pretrained=DIR,trust_remote_code=True."
)
