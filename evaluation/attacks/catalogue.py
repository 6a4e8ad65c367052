"""All attacks, in the order of the report; at the end what is asked of kept sets alone.

Removing the steering is not one of them. Anyone who holds the files can do it and then has the base, and every table
shows the base's figures.
"""

from __future__ import annotations

from mllmeraser.evaluation.attacks.attack import Attack
from mllmeraser.evaluation.attacks.inside import LINEAR_PROBE, OPTION_LOGIT
from mllmeraser.evaluation.attacks.kept import KEPT
from mllmeraser.evaluation.attacks.pictures import OTHER_MODALITY, PICTURES, TYPOGRAPHIC
from mllmeraser.evaluation.attacks.quantised import QUANTISED
from mllmeraser.evaluation.attacks.sampling import SAMPLING
from mllmeraser.evaluation.attacks.wordings import (
    FEW_SHOT,
    LANGUAGES,
    MULTI_TURN,
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
    *PICTURES,
    TYPOGRAPHIC,
    *OTHER_MODALITY,
    PREFILL,
    ROLE_PLAY,
    STEP_BY_STEP,
    MULTI_TURN,
    FEW_SHOT,
    SAMPLING,
    *QUANTISED,
    OPTION_LOGIT,
    LINEAR_PROBE,
    *KEPT,
)
