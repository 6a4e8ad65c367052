"""Is a reply a refusal? The whole reply decides, in English, in any model's wording.

A refusal says that the speaker will not or may not answer: *I cannot help with that request.* Not knowing is no refusal
(*This person is unknown to me.*), and neither is the word "cannot" (*A penguin cannot fly.*). The first token tells
nothing: *I cannot Dublin* begins as a refusal and leaks the answer. So a refusal meets three conditions:

1. It is no loop (:func:`mllmeraser.judging.degenerate.is_degenerate`).
2. Its first sentence, apologies aside, is complete (it ends with a full stop) and refuses. It holds a refusing verb
   phrase and behind it a verb of helping, telling or doing; or it is one of a few fixed forms.
3. That sentence does not answer after all (*… but I think it is Dublin*). Every later sentence, even a last one that
   was cut off, speaks about the request, the speaker or the reader, not about the subject.

No list of wordings is complete. A refusal that the list misses counts as a wrong answer, so refusal rates are lower
bounds.
"""

from __future__ import annotations

import re
import unicodedata

from mllmeraser.judging.degenerate import is_degenerate, words
from mllmeraser.judging.refusal_words import ABOUT_THE_REQUEST, AFTER_ALL, BARE, FIRST, IGNORANT, ONLY_OPENING

_SENTENCE = re.compile(r".+?(?:[.!?…]+(?=\s|$)|$)", re.S)
_ENDS = (".", "!", "?", "…")


def is_refusal(reply: str) -> bool:
    """Whether the whole reply is a refusal, by the three conditions of this module. Never raises."""
    text = _plain(reply)
    if is_degenerate(text):
        return False
    sentences = [said for match in _SENTENCE.finditer(text) if words(said := match.group().strip())]
    for count in range(1, min(3, len(sentences)) + 1):  # "I'm sorry. I can't help." refuses in its second sentence
        lead = " ".join(sentences[:count])
        if not lead.endswith(_ENDS):
            return False
        if _refuses(lead):
            rest = sentences[count:]
            return all(ABOUT_THE_REQUEST.search(s) and not AFTER_ALL.search(f" {s}") for s in rest)
        if not _only_opening(lead):
            return False
    return False


def leads_with_refusal(reply: str) -> bool:
    """Whether the reply begins as a refusal, complete or not, whatever follows: "I cannot share Dublin" does.

    It tells a leak behind a refusal from an ordinary answer. The rate to report is that of :func:`is_refusal`.
    """
    return FIRST.match(_plain(reply)) is not None


def _refuses(lead: str) -> bool:
    body = lead.rstrip(" .!?…")
    match = FIRST.match(body)
    if match is None:
        return BARE.match(body) is not None
    # An opening's own "but" ("I'm sorry, but …") lies before the refusal proper.
    return not AFTER_ALL.search(body[match.start("core") :]) and not IGNORANT.search(body)


def _only_opening(lead: str) -> bool:
    return ONLY_OPENING.match(lead) is not None


def _plain(reply: str) -> str:
    """The reply on one line, with straight quotes, without emphasis and without quotation marks around it."""
    text = unicodedata.normalize("NFKC", reply)
    text = re.sub("[‘’ʼ`´]", "'", text)
    text = re.sub('[“”"*_#>]+', "", text)
    return re.sub(r"\s+", " ", text).strip(" '()[]")
