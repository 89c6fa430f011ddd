"""The order in which rows are trained on, the padding of a batch, and which of its tokens see each other."""

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

    Examples with `position_ids` keep them, and get an attention mask of four dimensions, see `_mask_apart`. Padding is
    told by position, never by its id: pad and end token may be the same, and leaving that id out of the loss would
    teach the model never to stop.
    """
    import torch

    width = -(-max(len(example["input_ids"]) for example in examples) // 8) * 8
    masked = [{**example, "attention_mask": [1] * len(example["input_ids"])} for example in examples]
    padding = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    batch = {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in masked])
        for name, value in padding.items()
    }
    if "position_ids" in examples[0]:
        positions = [row["position_ids"] for row in masked]
        # Padding goes on from the last turn, which does not see it, as no token sees what follows it.
        positions = [row + list(range(row[-1] + 1, row[-1] + 1 + width - len(row))) for row in positions]
        batch["position_ids"] = torch.tensor(positions)
        batch["attention_mask"] = _mask_apart(batch["position_ids"])
    return batch


def _mask_apart(positions):
    """What is added to the attention scores (batch, 1, width, width): 0 where a token may look, else the lowest number.

    A token sees those before it in the shared prefix and in its own turn. A turn begins where the positions (batch,
    width) fall back, and they fall back to the length of the prefix. In 16 bits the lowest number becomes minus
    infinity, which does no harm: every token sees at least itself.
    """
    import torch

    width, place = positions.shape[1], torch.arange(positions.shape[1])
    begins = positions[:, 1:] <= positions[:, :-1]
    turn = torch.nn.functional.pad(begins.cumsum(1), (1, 0))
    prefix = torch.where(begins, positions[:, 1:], width).amin(1)
    same = (turn[:, :, None] == turn[:, None, :]) | (place < prefix[:, None, None])
    seen = same & (place <= place[:, None])
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
