"""The checkpoint: a directory that anyone loads with ``from_pretrained``, and the checks of what it promises."""
