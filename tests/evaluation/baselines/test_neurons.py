"""MANU's importances and scores by hand, and what pruning leaves of a model."""

import pytest
import torch

from mllmeraser.baselines.neurons import Moments, prune, scores, second_layers, top_share
from mllmeraser.errors import InputError
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import Source
from mllmeraser.records.record import Record


def test_the_four_importances() -> None:
    moments = Moments()
    moments.add(torch.tensor([[3.0, 0.05]]))
    moments.add(torch.tensor([[[-1.0, 0.05]]]))
    absolute, active, spread, square = moments.importances().tolist()
    assert absolute == pytest.approx([2.0, 0.05])
    assert active == pytest.approx([1.0, 0.0])
    assert spread == pytest.approx([2.0, 0.0], abs=1e-9)
    assert square == pytest.approx([5**0.5, 0.05])


def test_a_score_is_a_sum_of_ratios() -> None:
    forget, retain = torch.tensor([[2.0], [1.0], [1.0], [3.0]]), torch.tensor([[1.0], [1.0], [2.0], [1.0]])
    assert scores(forget, retain).item() == pytest.approx(2 + 1 + 0.5 + 3, rel=1e-4)


def test_the_top_share_is_taken_of_all_layers_together() -> None:
    by_layer = {"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([2.0, 8.0])}
    chosen = top_share(by_layer, 50)
    assert chosen["a"].tolist() == chosen["b"].tolist() == [False, True]
    assert sum(int(mask.sum()) for mask in top_share(by_layer, 1).values()) == 1


def test_pruning_zeroes_whole_neurons_and_nothing_else(
    source: Source, forget: list[Record], retain: list[Record]
) -> None:
    checkpoint, before = load(source, dtype="float32"), load(source, dtype="float32").model.state_dict()
    count = prune(checkpoint, forget, retain, 5, 4)
    layers = second_layers(checkpoint.model)
    pruned = sum(int((layer.weight == 0).all(dim=0).sum()) for layer in layers.values())
    assert pruned == count > 0
    for name, tensor in checkpoint.model.state_dict().items():
        same = tensor == before[name]
        assert bool((same | (tensor == 0)).all())
        assert bool(same.all()) or name.removesuffix(".weight") in layers


def test_sets_without_a_common_modality_cannot_be_compared(
    source: Source, forget: list[Record], retain: list[Record]
) -> None:
    seen, told = [s for s in forget if s.image], [s for s in retain if not s.image]
    with pytest.raises(InputError, match="one modality"):
        prune(load(source, dtype="float32"), seen, told, 5, 4)
