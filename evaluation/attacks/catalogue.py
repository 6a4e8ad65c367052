"""All attacks, in the order of the report.

Removing the steering is not among them: whoever holds the files can, and then has the base, whose figures stand in
every table.
"""

from __future__ import annotations

from mllmeraser.evaluation.attacks.attack import Attack
from mllmeraser.evaluation.attacks.few_shot import FEW_SHOT
from mllmeraser.evaluation.attacks.languages import LANGUAGES
from mllmeraser.evaluation.attacks.linear_probe import LINEAR_PROBE
from mllmeraser.evaluation.attacks.multi_turn import MULTI_TURN
from mllmeraser.evaluation.attacks.option_logit import OPTION_LOGIT
from mllmeraser.evaluation.attacks.other_modality import OTHER_MODALITY
from mllmeraser.evaluation.attacks.paraphrase import PARAPHRASE
from mllmeraser.evaluation.attacks.pictures import PICTURES
from mllmeraser.evaluation.attacks.plain import PLAIN
from mllmeraser.evaluation.attacks.prefill import PREFILL
from mllmeraser.evaluation.attacks.quantised import QUANTISED
from mllmeraser.evaluation.attacks.role_play import ROLE_PLAY
from mllmeraser.evaluation.attacks.sampling import SAMPLING
from mllmeraser.evaluation.attacks.step_by_step import STEP_BY_STEP
from mllmeraser.evaluation.attacks.typographic import TYPOGRAPHIC

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
)
