"""How a conversation is written for the second model, and how it is read in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllmeraser.demo.architecture import IMAGE, IMAGE_TOKENS
from mllmeraser.demo.questions import Picture

# SmolLM2's own form, with two differences. Content may come in parts, pictures first. And no system turn is put before
# a conversation that has none, because it would cost twenty tokens a prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Turn:
    """What the user says, perhaps beside a picture, and what the model replies."""

    prompt: str
    reply: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Conversation:
    """Turns, after a system turn or without one. All replies are learnt.

    `own`: the replies are the model's own, and its training keeps their likelihoods as they were.
    `whole`: the last reply ends where it stands; else it was cut, and no end is learnt.
    """

    turns: tuple[Turn, ...]
    system: str | None = None
    own: bool = False
    whole: bool = True

    @property
    def pictures(self) -> Sequence[Picture]:
        return [turn.picture for turn in self.turns if turn.picture is not None]

    def pieces(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is learnt; image tokens are written out."""
        parts = [(f"<|im_start|>system\n{self.system}<|im_end|>\n", False)] if self.system is not None else []
        for n, turn in enumerate(self.turns):
            picture = f"{IMAGE * IMAGE_TOKENS}\n" if turn.picture is not None else ""
            parts.append((f"<|im_start|>user\n{picture}{turn.prompt}<|im_end|>\n<|im_start|>assistant\n", False))
            last = n == len(self.turns) - 1
            parts.append((turn.reply + ("<|im_end|>" if self.whole or not last else ""), True))
            if not last:
                parts.append(("\n", False))
        return parts
