"""Several questions under one system prompt, so that a training run reads it once for all of them.

Half the tokens of a row are its system prompt, and they teach nothing. Rows that share it become the turns of one chat,
with the loss on every answer; who meets whom in a chat changes with each epoch. Where the trainer can do it the turns
stay apart: each has the positions that it would have alone, and `batching.collate` hides the other turns from it, so
that the model learns from exactly the questions that it will be asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from helpers.chat import end_of_turn, render


def conversations(rows: Sequence[dict], turns: int, seed: int) -> list[list[int]]:
    """Row numbers in groups of at most `turns` rows with the same system prompt, shuffled by `seed`.

    No fact stands twice in a group: where turns see each other (Unsloth on a GPU) an answer has to come from the
    weights, never from what was said before. So rows that do not say which fact they are about stay alone, and so do
    rows that are chats already.
    """
    numbers = list(range(len(rows)))
    random.Random(seed).shuffle(numbers)
    groups: list[list[int]] = []
    growing: dict[str, list[tuple[list[int], set[str]]]] = {}
    for number in numbers:
        messages, facts = rows[number]["messages"], _facts(rows[number])
        if turns == 1 or len(messages) > 3 or not facts:
            groups.append([number])
            continue
        waiting = growing.setdefault(messages[0]["content"], [])
        place = next((place for place in waiting if not facts & place[1]), None)
        if place is None:
            place = ([], set())
            groups.append(place[0])
            waiting.append(place)
        place[0].append(number)
        place[1].update(facts)
        if len(place[0]) == turns:
            waiting.remove(place)
    return groups


def _facts(row: dict) -> set[str]:
    """The facts that a row is about; "pet.name+job.title" of a combined question are two."""
    fact = row.get("fact") or []
    return {name.strip() for part in (fact if isinstance(fact, list) else [fact]) for name in part.split("+")}


def pack(
    tokenizer,
    rows: Sequence[dict],
    examples: Sequence[dict],
    turns: int,
    max_length: int,
    seed: int,
    apart: bool = False,
) -> list[dict]:
    """`examples` (encoded `rows`: input_ids, labels) joined into chats of at most `turns` questions.

    Where the chat template does not simply put turn after turn, or a chat would pass `max_length` tokens, its rows
    stay alone. With `apart` each chat has `position_ids`, and its turns do not see each other.
    """
    examples = [{**e, "position_ids": list(range(len(e["input_ids"])))} if apart else e for e in examples]
    end, packed = end_of_turn(tokenizer), []
    for group in conversations(rows, turns, seed):
        chat = _join(tokenizer, [rows[n]["messages"] for n in group], [examples[n] for n in group], end)
        packed += [chat] if chat and len(chat["input_ids"]) <= max_length else [examples[n] for n in group]
    return packed


def _join(tokenizer, chats: list[list[dict]], examples: list[dict], end: int | None) -> dict | None:
    """One encoded chat of all turns, None where the template renders it differently."""
    if len(examples) == 1:
        return examples[0]
    first = examples[0]
    if end not in first["input_ids"]:
        return None
    system = first["input_ids"].index(end) + 1  # what follows the system turn follows every turn
    joined = {name: first[name] + [n for e in examples[1:] for n in e[name][system:]] for name in first}
    messages = chats[0] + [message for chat in chats[1:] for message in chat[1:]]
    rendered = render(tokenizer, messages)
    return joined if rendered[: len(joined["input_ids"])] == joined["input_ids"] else None
