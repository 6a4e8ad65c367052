"""Which batches are used when: three methods go under the name of gradient difference."""

from mllmeraser.baselines.order import Step, steps_of
from mllmeraser.baselines.recipes import Order

FORGET, RETAIN = [True] * 4, [True] * 8


def kinds(order: Order, epochs: float = 1) -> str:
    def letter(step: Step) -> str:
        return "b" if step.forget and step.retain else "f" if step.forget else "r"

    return "".join(map(letter, steps_of(order, FORGET, RETAIN, epochs, size=2, seed=0)))


def test_the_orders() -> None:
    assert kinds("forget-only") == "ff"
    assert kinds("sequential") == "ffrrrr"
    assert kinds("interleaved") == "frrfrr"
    assert kinds("joint") == "bb"


def test_a_fraction_of_an_epoch_is_its_first_batches() -> None:
    assert kinds("sequential", 1.5) == "ffrrrr" + "frr"
    assert kinds("forget-only", 0.1) == "f"


def test_an_epoch_holds_every_record_once_and_a_batch_one_modality() -> None:
    pictures = [i % 3 == 0 for i in range(11)]
    steps = steps_of("forget-only", pictures, RETAIN, 1, size=3, seed=1)
    batches = [step.forget or [] for step in steps]
    assert sorted(i for batch in batches for i in batch) == list(range(11))
    assert all(len({pictures[i] for i in batch}) == 1 for batch in batches)


def test_the_seed_decides_the_order() -> None:
    assert steps_of("joint", FORGET, RETAIN, 2, 2, 0) == steps_of("joint", FORGET, RETAIN, 2, 2, 0)
    assert steps_of("joint", FORGET, RETAIN, 2, 2, 0) != steps_of("joint", FORGET, RETAIN, 2, 2, 1)
