"""The model card: what was done, how to load it and switch it off, what was measured, and its limits.

A card is made twice from the same template: by an export, and again by a push. Only the push knows the repository's
name, and it may have results. The card shows the ids, layers, gates and statistics of requests. It shows nothing of the
records (promise P9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.limits import LIMITS
from mllmeraser.bundle.metadata import Metadata, RemovalRequest, edited_tokens
from mllmeraser.exporter import manifest
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.card_results import Comparison
from mllmeraser.exporter.licence import read_licence
from mllmeraser.exporter.reproduce import base_argument, reproduce
from mllmeraser.modeling_patches.format_mllmeraser import INDEX

__all__ = ["Gated", "Publication", "render_card", "render_published"]

Gated = Literal["auto", "manual", False]  # who grants access to a repository: the Hub at once, a person, nobody has to

_TAGS = ["mllmeraser", "steered", "machine-unlearning", "activation-steering"]
_PLACE = "PATH_OR_REPOSITORY_OF_THIS_CHECKPOINT"


@dataclass(frozen=True)
class Publication:
    """What only a push knows about a checkpoint.

    ``tag`` names the revision to load. ``gated`` and ``terms`` (the ``extra_gated_…`` keys) are the base's.
    """

    repo_id: str
    tag: str
    gated: Gated = False
    terms: Mapping[str, Any] = field(default_factory=dict)


def render_card(base: BaseCheckpoint, bundles: Sequence[Bundle], thin: bool = False) -> str:
    """The text of ``README.md`` in an export."""
    return _render(manifest.provenance(base, bundles), read_licence(base.root), None, (), thin)


def render_published(
    provenance: Mapping[str, Any],
    licence: Mapping[str, str],
    publication: Publication,
    comparisons: Sequence[Comparison] = (),
) -> str:
    """The text of ``README.md`` in a push.

    Args:
        provenance: the manifest of the exported directory.
        licence: the ``license…`` keys of the exported card.
        comparisons: what an evaluation measured of base and steered checkpoint.
    """
    return _render(provenance, licence, publication, comparisons, INDEX not in provenance["files"])


def _render(
    provenance: Mapping[str, Any],
    licence: Mapping[str, str],
    publication: Publication | None,
    comparisons: Sequence[Comparison],
    thin: bool,
) -> str:
    bundles = [Metadata.model_validate(bundle) for bundle in provenance["bundles"]]
    base = dict(provenance["base"])
    # The base may be a local directory here, and a bundle may know its repository.
    known = {base["repo_id"]} - {None} or {bundle.base.repo_id for bundle in bundles}
    base["repo_id"] = next(iter(known)) if len(known) == 1 else None
    environment = Environment(
        loader=PackageLoader("mllmeraser", "exporter"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; every value is checked or made by us
    )
    return environment.get_template("model_card.md.jinja").render(
        front=_front(base["repo_id"], licence, publication, comparisons, thin).to_yaml(),
        thin=thin,
        base=base,
        publication=publication,
        place=_PLACE if publication is None else publication.repo_id,
        comparisons=comparisons,
        requests=[_row(bundle, request) for bundle in bundles for request in bundle.requests],
        limits=LIMITS,
        commands=reproduce(base_argument(base["repo_id"], base["revision"]), bundles, thin),
        version=provenance["tool"]["version"],
    )


def _front(
    base: str | None,
    licence: Mapping[str, str],
    publication: Publication | None,
    comparisons: Sequence[Comparison],
    thin: bool,
) -> ModelCardData:
    """The front matter. Of the Hub's four relations to a base, ``adapter`` fits a thin checkpoint only."""
    extra: dict[str, Any] = {**licence, "pipeline_tag": "image-text-to-text", "base_model": base}
    if base is not None:
        extra["base_model_relation"] = "adapter" if thin else "finetune"
    if publication is not None:
        extra |= publication.terms
    if publication is not None and comparisons:
        extra |= {"model_name": publication.repo_id.partition("/")[2], "eval_results": _results(comparisons)}
    return ModelCardData(library_name="transformers", tags=list(_TAGS), **extra)


def _results(comparisons: Sequence[Comparison]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type="records",
            dataset_name=f"{row.set}: {row.task}, {row.input}, {row.n} records",
            dataset_config=f"{row.task}, {row.input}",  # the Hub tells results apart by this and the split
            dataset_split=row.set,
            metric_type=metric,
            metric_value=round(rate.value, 4),
            metric_name=f"{label} (95 % {rate.low:.3f} – {rate.high:.3f}{before})",
        )
        for row in comparisons
        for metric, label, rate, before in (
            ("accuracy", "right replies", row.steered.accuracy, f"; base {row.base.accuracy.value:.3f}"),
            ("refusal_rate", "whole refusals", row.steered.refusal, f"; base {row.base.refusal.value:.3f}"),
            ("identical_to_base", "replies identical to the base's", row.steered.identical_to_base, ""),
        )
    ]


def _row(meta: Metadata, request: RemovalRequest) -> dict[str, str]:
    gate = meta.gate
    threshold = "" if gate.threshold is None else f" {gate.threshold:g}"
    where = "each layer" if meta.gate_layer is None else f"layer {meta.gate_layer}"
    through = "" if gate.projection is None else f" through {gate.projection} random projections"
    return {
        "id": request.id,
        "layers": ", ".join(str(layer) for layer in meta.layers),
        "gate": f"{gate.kind}, {gate.shape}{threshold}, scope {gate.scope}, read at {where}{through}",
        "edit": meta.edit,
        "strength": f"{request.strength:g}" + ("" if request.enabled else " (off)"),
        "tokens": edited_tokens(gate.scope, gate.turn is not None, meta.edit, meta.prompt_positions, meta.reply_steps),
        "auroc": _range([s.auroc_heldout for s in request.statistics.values()], "{:.3f}"),
        "true_fire": _range([s.true_fire_heldout for s in request.statistics.values()], "{:.1%}"),
        "false_fire": _range([s.false_fire_heldout for s in request.statistics.values()], "{:.1%}"),
    }


def _range(values: Sequence[float | None], form: str) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "not measured"
    low, high = form.format(known[0]), form.format(known[-1])
    return low if low == high else f"{low} – {high}"
