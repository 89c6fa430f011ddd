"""Questions in the wild: written from the shipped profiles alone by somebody who had not seen the phrasing bank.

They are asked and never trained on, and no form of the bank was written after them: the hardest test there is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helpers.evaluation import is_abstention
from helpers.files import read_jsonl
from helpers.models import ROOT
from helpers.profile import Profile
from helpers.results import metric

WILD = ROOT / "data" / "eval" / "wild.jsonl"


def wild_rows(profile: Profile, name: str, path: Path = WILD) -> list[dict]:
    """The questions for the shipped profile `name` as rows that can be asked and judged."""
    return [
        {
            **entry,
            "messages": [
                {"role": "system", "content": profile.system_prompt},
                {"role": "user", "content": entry["question"]},
                {"role": "assistant", "content": " ".join(entry["keywords"]) or "I don't know."},
            ],
        }
        for entry in read_jsonl(path)
        if entry["profile"] == name
    ]


def wild_scores(asked: Sequence[dict]) -> dict[str, dict]:
    """{score: {value, n, ci95}} of answered rows: facts recalled, the unknown not invented, strangers not given the
    owner's facts."""
    groups = {kind: [row for row in asked if row["kind"] == kind] for kind in ("fact", "unknown", "stranger")}
    strangers = groups["stranger"]
    return {
        "wild_recall": metric(sum(row["right"] for row in groups["fact"]), len(groups["fact"])),
        "wild_abstention": metric(sum(row["right"] for row in groups["unknown"]), len(groups["unknown"])),
        "wild_leaks": metric(sum(not row["right"] for row in strangers), len(strangers)),
        "wild_strangers_abstained": metric(sum(is_abstention(row["answer"]) for row in strangers), len(strangers)),
    }
