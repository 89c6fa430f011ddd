"""What a dataset must be before anything is trained on it: no doubles, split by question form, in balance."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from helpers.errors import UserError
from helpers.rows import answer, check_rows, fact_name, question
from helpers.text import folded

__all__ = [
    "answer",
    "balance",
    "check_rows",
    "check_split",
    "dataset_card",
    "drop_duplicates",
    "drop_trained",
    "question",
]
NEAR = 95  # similarity in percent from which two questions for the same fact count as one


def check_split(train: Iterable[dict], evaluation: Iterable[dict]) -> None:
    """Raise UserError when a question form, or the very words of a question, stand in both parts."""
    forms, words = set(), set()
    for row in train:
        forms.add(row["phrasing"])
        words.add(_plain(question(row)))
    for number, row in enumerate(evaluation, 1):
        place = f"evaluation: row {number}"
        if row["phrasing"] in forms:
            raise UserError(
                f"the question form {row['phrasing']!r} was trained on",
                place,
                "Split by phrasing, not by row.",
            )
        if _plain(question(row)) in words:
            raise UserError(f"the question {question(row)!r:.80} was trained on", place, "Drop it from one of the two.")


def drop_trained(train: Iterable[dict], evaluation: Iterable[dict]) -> list[dict]:
    """The evaluation rows whose question, without case and punctuation, stands in no training row."""
    words = {_plain(question(row)) for row in train}
    return [row for row in evaluation if _plain(question(row)) not in words]


def _plain(text: str) -> str:
    """A question without case and punctuation; one of signs only stays as it is."""
    return " ".join(re.findall(r"\w+", folded(text))) or folded(text)


# -- doubles


def drop_duplicates(rows: Sequence[dict], near: int = NEAR) -> tuple[list[dict], dict[str, int]]:
    """(rows without doubles, {"exact": n, "near": n}): the first of each group stays, the order too.

    Exact: the same conversation. Near: questions about the same fact, from the same perspective and in the
    same style, that are alike to `near` percent or more. Rows about no fact are near doubles only if the
    answers are equal too: "What is 2 + 3?" and "What is 2 + 4?" are two questions.
    """
    import numpy as np
    from rapidfuzz import fuzz, process

    seen: set[tuple] = set()
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        conversation = tuple(message["content"] for message in row["messages"])
        if conversation in seen:
            continue
        seen.add(conversation)
        fact = row["fact"] if isinstance(row["fact"], str) else tuple(row["fact"] or ())
        groups[
            fact,
            row["kind"],
            row.get("perspective"),
            row.get("style"),
            conversation[:-2],
            tuple(row["keywords"]),
            "" if fact else conversation[-1],
        ].append(i)

    kept: list[int] = []
    for members in groups.values():
        texts = [folded(question(rows[i])) for i in members]
        alive = np.ones(len(members), dtype=bool)
        if len(members) > 1:
            alike = process.cdist(texts, texts, scorer=fuzz.ratio, score_cutoff=near, dtype=np.uint8) >= near
            for first in range(len(members)):
                if alive[first]:
                    alive[first + 1 :] &= ~alike[first, first + 1 :]
        kept += [i for i, stays in zip(members, alive, strict=True) if stays]
    report = {
        "exact": len(rows) - sum(map(len, groups.values())),
        "near": sum(map(len, groups.values())) - len(kept),
    }
    return [rows[i] for i in sorted(kept)], report


# -- balance and card


def balance(rows: Sequence[dict]) -> dict:
    """Rows per kind, fact (kind `fact` only), style and perspective, and `warnings` in plain words.

    A fact with less than half of the median's rows, or a training set without contrast rows, is learnt badly.
    """
    facts = Counter(fact_name(row) for row in rows if row["kind"] == "fact")
    kinds = Counter(row["kind"] for row in rows)
    warnings = []
    if facts:
        middle = median(facts.values())
        warnings += [f"only {n} rows for {fact} (median {middle:g})" for fact, n in facts.items() if n < middle / 2]
        warnings += [f"no rows of kind {kind}" for kind in ("unknown", "general") if not kinds[kind]]
    return {
        "kinds": dict(kinds),
        "facts": dict(facts),
        "warnings": warnings,
        "styles": dict(Counter(row.get("style") or "plain" for row in rows)),
        "perspectives": dict(Counter(row.get("perspective") or "none" for row in rows)),
    }


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    return ["| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *lines)] + [""]


def _lengths(texts: list[str]) -> list[int]:
    """Median, 90th percentile and longest, in words."""
    words = sorted(len(text.split()) for text in texts) or [0]
    return [words[len(words) // 2], words[int(0.9 * (len(words) - 1))], words[-1]]


def _cell(text: str) -> str:
    return text.replace("\n", " ⏎ ").replace("|", "\\|")


def dataset_card(train: Sequence[dict], evaluation: Sequence[dict]) -> str:
    """The dataset in Markdown: how many rows of what, how long, and one example of each kind."""
    parts = {"train": train, "eval": evaluation}
    card = [
        "# Dataset card",
        "",
        f"{len(train)} rows to train on, {len(evaluation)} to evaluate with; no question form is in both.",
        "",
    ]
    counts = {name: balance(rows) for name, rows in parts.items()}
    for title, key in (
        ("kind", "kinds"),
        ("fact", "facts"),
        ("style", "styles"),
        ("perspective", "perspectives"),
    ):
        names = sorted(set(counts["train"][key]) | set(counts["eval"][key]))
        card += [
            f"## Rows per {title}",
            "",
            *_table(
                (title, "train", "eval"),
                [(name, counts["train"][key].get(name, 0), counts["eval"][key].get(name, 0)) for name in names],
            ),
        ]
    card += [
        "## Lengths in words",
        "",
        *_table(
            ("", "median", "90 %", "longest"),
            [
                (f"{what}, {name}", *_lengths([read(row) for row in rows]))
                for what, read in (("question", question), ("answer", answer))
                for name, rows in parts.items()
            ],
        ),
    ]
    examples = {}
    for row in train:
        examples.setdefault(row["kind"], row)
    card += [
        "## Examples",
        "",
        *_table(
            ("kind", "question", "answer"),
            [(kind, _cell(question(row)), _cell(answer(row))) for kind, row in sorted(examples.items())],
        ),
    ]
    if counts["train"]["warnings"]:
        card += ["## Warnings", "", *[f"- {warning}" for warning in counts["train"]["warnings"]], ""]
    return "\n".join(card)
