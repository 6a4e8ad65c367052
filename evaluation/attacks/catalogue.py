"""All attacks, in the order of the report: those that any user can make, those that stand apart, what kept sets get.

Removing the steering is not one of them. Anyone who holds the files can do it and then has the base, and every table
shows the base's figures.
"""

from __future__ import annotations

from mllmeraser.evaluation.attacks.against_gate import AGAINST_GATE
from mllmeraser.evaluation.attacks.attack import Attack
from mllmeraser.evaluation.attacks.conversations import ARE_YOU_SURE, LAST_PICTURE, MULTI_TURN, SYSTEM_TURN
from mllmeraser.evaluation.attacks.decoding import DECODING, SAMPLING
from mllmeraser.evaluation.attacks.inside import LINEAR_PROBE, OPTION_LOGIT
from mllmeraser.evaluation.attacks.kept import KEPT
from mllmeraser.evaluation.attacks.people import PEOPLE
from mllmeraser.evaluation.attacks.pictures import BESIDE_KEPT, OTHER_MODALITY, PICTURES, TYPOGRAPHIC
from mllmeraser.evaluation.attacks.published import READ_OUT
from mllmeraser.evaluation.attacks.quantised import QUANTISED
from mllmeraser.evaluation.attacks.token_by_token import TOKEN_BY_TOKEN
from mllmeraser.evaluation.attacks.tuned import FINE_TUNED
from mllmeraser.evaluation.attacks.wordings import (
    FEW_SHOT,
    LANGUAGES,
    PARAPHRASE,
    PLAIN,
    PREFILL,
    ROLE_PLAY,
    STEP_BY_STEP,
)

ATTACKS: tuple[Attack, ...] = (
    PLAIN,
    PARAPHRASE,
    *LANGUAGES,
    *PEOPLE,
    *PICTURES,
    TYPOGRAPHIC,
    *OTHER_MODALITY,
    *BESIDE_KEPT,
    PREFILL,
    ROLE_PLAY,
    STEP_BY_STEP,
    SYSTEM_TURN,
    MULTI_TURN,
    ARE_YOU_SURE,
    LAST_PICTURE,
    FEW_SHOT,
    *SAMPLING,
    *DECODING,
    TOKEN_BY_TOKEN,
    *QUANTISED,
    OPTION_LOGIT,
    LINEAR_PROBE,
    *AGAINST_GATE,
    FINE_TUNED,
    READ_OUT,
    *KEPT,
)
