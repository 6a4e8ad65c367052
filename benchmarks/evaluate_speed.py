"""Speed of evaluating the demo world: batches of similar length against the one-by-one loop of the public scripts.

    python benchmarks/evaluate_speed.py [--records 384] [--batch-size 64] [--rounds 3] [--cpu-time]

The script asks the demo model records from all evaluation sets of the demo, so that tasks and modalities are mixed as
they are there.

* loop: does what MLLMU-Bench's and MMUnlearner's scripts do: one prompt, processor, ``generate(max_new_tokens=50,
  do_sample=False)``, decode.
* replies: gets the same greedy replies by batches (``inference.replies.greedy_reply_ids``).
* weighing loop: runs the loop, then gets the likelihoods of every record's options or answer, one by one.
* evaluate: does the same by batches, as ``mllmeraser evaluate`` does (``evaluation.answering``).

Each round runs all four in turn, in this process. The script prints the median throughputs, the medians of the rounds'
ratios of each batched way to the loop that does the same, and how many replies have the same tokens.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from mllmeraser.demo.data import write_data
from mllmeraser.demo.run import CHECKPOINT, SETS
from mllmeraser.evaluation.answering import answer
from mllmeraser.evaluation.items import candidates
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids, reply_ids
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record

NEW_TOKENS = 50
Ids = list[tuple[int, ...]]


@torch.inference_mode()
def loop(checkpoint: Checkpoint, records: Sequence[Record]) -> Ids:
    """One prompt after another."""
    said = []
    for record in records:
        inputs = encode(checkpoint, [record.user_turn], "left")
        outputs = checkpoint.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        said.append(tuple(outputs[0, inputs["input_ids"].shape[1] :].tolist()))
        checkpoint.processor.tokenizer.decode(said[-1], skip_special_tokens=True)
    return said


def replies(checkpoint: Checkpoint, records: Sequence[Record]) -> Ids:
    """The same replies by batches."""
    turns = [record.user_turn for record in records]
    found = greedy_reply_ids(checkpoint, turns, max_new_tokens=NEW_TOKENS)
    checkpoint.processor.tokenizer.batch_decode(found, skip_special_tokens=True)
    return [tuple(ids.tolist()) for ids in found]


@torch.inference_mode()
def weighing_loop(checkpoint: Checkpoint, records: Sequence[Record]) -> Ids:
    """One prompt after another, then one option or answer after another."""
    said = loop(checkpoint, records)
    for record in records:
        turn = record.user_turn
        for replies in candidates(record, turn.text).values():
            for reply in replies:
                inputs, starts = append(
                    checkpoint, encode(checkpoint, [turn], "right"), [ids := reply_ids(checkpoint, turn, reply)]
                )
                logits = checkpoint.model(**inputs, use_cache=False).logits[0, int(starts[0]) - 1 : -1]
                logits.log_softmax(dim=-1).gather(1, ids[:, None]).sum().item()
    return said


def evaluate(checkpoint: Checkpoint, records: Sequence[Record]) -> Ids:
    """The same replies and likelihoods by batches."""
    return [reply.ids for reply in answer(checkpoint, records)]


WAYS: Sequence[Callable[[Checkpoint, Sequence[Record]], Ids]] = (loop, replies, weighing_loop, evaluate)
BESIDE = {"replies": "loop", "evaluate": "weighing_loop"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time, for a shared machine")
    options = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
    checkpoint = load(CHECKPOINT, dtype="float32", batch_size=options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_data(Path(folder))
        every = [record for file in SETS.values() for record in read_records(paths[file])]
        records = random.Random(0).sample(every, min(options.records, len(every)))
        for way in WAYS:
            way(checkpoint, records[:8])  # warm up
        seconds: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
        said: dict[str, Ids] = {}
        for _ in range(options.rounds):
            for way in WAYS:
                start = clock()
                said[way.__name__] = way(checkpoint, records)
                seconds[way.__name__].append(clock() - start)
    print(f"{len(records)} records of the demo world, batches of {options.batch_size}, {options.rounds} rounds")
    for name, runs in seconds.items():
        line = f"{name:14} {len(records) / statistics.median(runs):7.1f} records/s"
        if name in BESIDE:
            ratio = statistics.median(a / b for a, b in zip(seconds[BESIDE[name]], runs, strict=True))
            same = sum(one == other for one, other in zip(said["loop"], said[name], strict=True))
            line += f", {ratio:.2f} times {BESIDE[name]}; {same} of {len(records)} replies the same"
        print(line)


if __name__ == "__main__":
    main()
