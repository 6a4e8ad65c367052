"""How it travels: a checkpoint directory that anyone loads with ``from_pretrained``, and its proof."""
