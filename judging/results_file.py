"""The results document, key by key: ``evaluate`` and ``demo`` write it, a report and a model card read it.

``docs/json.md`` explains every key. Each part is checked when it is made, so that no file holds what its reader would
refuse. Keys that this version does not know are ignored, because later versions may add some. A part or a key that was
never given is not written; one that was given as null is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmeraser.errors import InputError
from mllmeraser.judging.intervals import Interval

SCHEMA: Final = 1

Outcome = Literal["correct", "wrong", "refusal", "unparsable", "degenerate"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Task = Literal["generation", "cloze", "classification"]
Rate = Annotated[float, Field(ge=0, le=1)]
AGREEMENT = 0.01  # two figures of one thing may lie so far apart


class Part(BaseModel):
    """A part of the document: frozen, of exactly these types, and every number finite."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Intervals(Part):
    """95 % intervals of a mean: ``wilson`` over independent replies (null for what is no share), and over subjects."""

    wilson: Interval | None
    by_subject: Interval

    @property
    def widest(self) -> Interval:
        """The outer bound at either end.

        Wilson's interval takes replies about one subject for independent; a bootstrap of equal values has no width.
        """
        ends = [self.by_subject] if self.wilson is None else [self.by_subject, self.wilson]
        return min(low for low, _ in ends), max(high for _, high in ends)


class RowIntervals(Part):
    """The intervals of a row, by measure; null where the measure is null."""

    accuracy: Intervals
    rouge_l: Intervals | None = None
    refusal: Intervals
    identical_to_base: Intervals
    rouge_l_recall: Intervals | None = None
    bleu: Intervals | None = None
    accuracy_substring: Intervals | None = None
    probability: Intervals | None = None
    truth_ratio: Intervals | None = None


class Outcomes(Part):
    """What the free replies are, as shares; their sum is 1."""

    correct: Rate
    wrong: Rate
    refusal: Rate
    unparsable: Rate
    degenerate: Rate


class Choice(Part):
    """Other readings of multiple choice."""

    accuracy_per_byte: Rate
    accuracy_named: Rate
    accuracy_first_character: Rate | None = None
    accuracy_first_alphanumeric: Rate | None = None


class Row(Part):
    """What one model said to the records of one set, task and modality, as far as the judge can know it.

    ``partly`` is the share of replies that tell a part of the answer, ``share`` the mean share of its parts told.
    """

    model: str
    set: str
    task: Task
    modality: Literal["image_text", "text"]
    n: Annotated[int, Field(ge=1)]
    subjects: int | None = None
    accuracy: Rate
    rouge_l: float
    refusal: Rate
    identical_to_base: Rate
    rouge_l_recall: float | None = None
    bleu: float | None = None
    accuracy_substring: float | None = None
    probability: float | None = None
    truth_ratio: float | None = None
    partly: Rate | None = None
    share: Rate | None = None
    intervals: RowIntervals
    outcomes: Outcomes
    choice: Choice | None = None


class Unjudged(Part):
    """Replies to records whose answer the judge cannot know, such as yes or one letter; they stand in no row."""

    model: str
    set: str
    task: Task
    modality: Literal["image_text", "text"]
    n: Annotated[int, Field(ge=1)]
    refusal: Rate
    identical_to_base: Rate


class Gates(Part):
    """The gate g of one request at one layer, at the end of every prompt of a set."""

    model: str
    set: str
    request: str
    layer: int
    threshold: float | None = None
    values: list[float]


class GateQuality(Part):
    """How well one gate tells the forgotten sets from the kept ones."""

    model: str
    request: str
    layer: int
    n_forgotten: int
    n_kept: int
    auroc: float
    false_fire_rate_at_95_true_fire: float
    threshold: float | None = None
    true_fire_rate: float | None = None
    false_fire_rate: float | None = None


class ModalityGap(Part):
    """Pairs of the same question in words and beside a picture."""

    model: str
    set: str
    task: Task
    pairs: int
    both_correct: float
    both_wrong: float
    gap: float
    rouge_l_aligned: float


class SummaryLine(Part):
    """One model on everything; null where a figure cannot be given."""

    model: str
    utility_harmonic_mean: float | None = None
    forget_knowledge: float | None = None
    forget_gap_to_reference: float | None = None
    forget_quality_ks_p: float | None = None
    probability: float | None = None
    truth_ratio: float | None = None
    kept_identical: float | None = None
    score: float | None = None


class AttackRow(Part):
    """What an attack gets out of a model on a set.

    ``refusal`` and ``identical_to_base`` are null where no reply was read; the latter also in older files. ``budget``
    is what an attack that stands apart may spend: no user of a served model can run it.
    """

    model: str
    set: str
    attack: str
    budget: str | None = None
    layer: int | None = None
    n: int
    accuracy: Rate
    refusal: Rate | None = None
    identical_to_base: Rate | None = None
    interval: Interval
    chance: float | None = None


class WorstAttack(Part):
    """The worst attack that reads replies, and the headline: ``any``, the share of records that some attack gets.

    ``beyond_reference`` is ``any`` minus that of the retain-only model under the same attacks; its interval is of the
    differences, record by record. It is null without a reference, for the reference itself, and in older files, which
    also lack ``any_interval``.
    """

    model: str
    set: str
    n: int
    plain: Rate
    attack: str
    accuracy: Rate
    interval: Interval
    any: Rate
    any_interval: Interval | None = None
    beyond_reference: float | None = None
    beyond_interval: tuple[float, float] | None = None


class CrossCheck(Part):
    """One figure made twice: ``accuracy`` by our reader and judge, ``again`` by transformers' loading and substrings.

    Both are of the same ``n`` records; ``same_replies`` is the share of replies that are equal, word for word.
    """

    model: str
    set: str
    n: int
    accuracy: Rate
    again: Rate
    same_replies: Rate

    @property
    def agrees(self) -> bool:
        """Whether the two figures lie no more than a point apart."""
        return abs(self.accuracy - self.again) <= AGREEMENT + 1e-9


class AttackNotRun(Part):
    """An attack that was not run, and why."""

    set: str
    attack: str
    reason: str


class Points(Part):
    """Hidden states of one model on one set, in the plane of a map."""

    model: str
    set: str
    x: list[float]
    y: list[float]


class ActivationMap(Part):
    """Where records lie inside a steered model and its base."""

    model: str
    block: int
    explained: list[float]
    points: list[Points]


class Method(Part):
    """One run of a method that is compared with others, or one trial of a setting.

    ``failed`` says why there are no figures. A comparison writes the figures that it has.
    """

    name: str
    settings: list[str] = []
    seed: int | None = None
    failed: str | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    bytes_added: int | None = None
    checkpoint: bool | None = None
    forgotten: float | None = None
    refusal: float | None = None
    options: float | None = None
    kept: float | None = None
    celebrity: float | None = None
    common: float | None = None
    identical: float | None = None
    utility: float | None = None
    harmonic_mean: float | None = None


class ResultsFile(Part):
    """The whole document. Each command writes the parts that it has."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    protocol: str | None = None
    judge: Literal["facts", "string"] | None = None
    base: str | None = None
    reference: str | None = None
    tier: Literal["T0", "T1", "T2"] | None = None
    forgotten: list[str] = []
    rows: list[Row] = []
    unjudged: list[Unjudged] = []
    cross_checks: list[CrossCheck] = []
    gates: list[Gates] = []
    gate_quality: list[GateQuality] = []
    modalities: list[ModalityGap] = []
    summary: list[SummaryLine] = []
    output: str | None = None
    provenance: dict[str, dict[str, str | int | float | bool | None]] = {}
    attacks: list[AttackRow] = []
    attacks_worst: list[WorstAttack] = []
    attacks_not_run: list[AttackNotRun] = []
    activations: list[ActivationMap] = []
    seconds: dict[str, float] = {}
    methods: list[Method] = []
    trials: list[Method] = []

    @property
    def compared_with(self) -> str:
        """The model that the others are compared with: ``base``, else the first row's; empty without rows."""
        return self.base or next((row.model for row in self.rows), "")

    def document(self) -> dict[str, Any]:
        """The JSON document: only what was given, in the order above."""
        return {"schema": SCHEMA, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}


def about_the_forgotten(name: str) -> bool:
    """Whether a set asks about the forgotten, judged by its name: it begins with "forget" or "test".

    The folders of MLLMU-Bench and CLEAR have such names, and so do the demo's sets. A name decides only where nobody
    names the sets of the forgotten.
    """
    return name.lower().startswith(("forget", "test"))


def read_results(path: Path) -> ResultsFile:
    """Read what ``evaluate -o``, the demo or a comparison of methods wrote.

    >>> read_results(Path("results.json")).rows[0].accuracy  # doctest: +SKIP
    0.95

    Raises:
        InputError: the file cannot be read, or a key is missing or of another kind.
    """
    wrote = "what `mllmeraser evaluate -o` wrote"
    return parse(contents(path, wrote), ResultsFile, str(path), wrote)


Parsed = TypeVar("Parsed", bound=BaseModel)


def contents(path: Path, wrote: str) -> bytes:
    """The bytes of a file; ``wrote`` is what the message asks for instead.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give {wrote}") from None


def parse(text: bytes, kind: type[Parsed], where: str, wrote: str) -> Parsed:
    """Read a JSON object of this kind.

    Raises:
        InputError: the text is none; the message names the place and the first wrong key.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {key + ': ' if key else ''}{first['msg']}; give {wrote}") from None
