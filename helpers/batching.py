"""The order in which rows are trained on, and the padding of a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from helpers.chat import IGNORE


def plan(epochs: Sequence[Sequence[int]], batch_size: int, seed: int) -> list[int]:
    """Example numbers in the order of training: shuffled within an epoch, yet with similar lengths in each batch.

    `epochs` holds the lengths of each epoch's examples, which are numbered on from epoch to epoch. Laying out the
    whole run beforehand makes every engine and every resumed run see the same batches.
    """
    generator, order, lengths = random.Random(seed), [], []
    for epoch in epochs:
        numbers = list(range(len(lengths), len(lengths) + len(epoch)))
        generator.shuffle(numbers)
        order += numbers
        lengths += epoch
    planned, pool = [], 32 * batch_size  # sorting within pools saves most padding and keeps most randomness
    for start in range(0, len(order), pool):
        group = sorted(order[start : start + pool], key=lambda number: lengths[number])
        batches = [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        generator.shuffle(full)
        planned += [number for batch in full + batches[len(full) :] for number in batch]
    return planned


def collate(examples: Sequence[dict], pad_id: int) -> dict:
    """A batch padded on the right to a multiple of 8 columns: input_ids, attention_mask, labels.

    Padding is told by position, never by its id: pad and end token may be the same, and leaving that id out
    of the loss would teach the model never to stop.
    """
    import torch

    width = -(-max(len(example["input_ids"]) for example in examples) // 8) * 8
    masked = [{**example, "attention_mask": [1] * len(example["input_ids"])} for example in examples]
    padding = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    return {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in masked])
        for name, value in padding.items()
    }
