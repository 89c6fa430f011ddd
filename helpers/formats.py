"""Other tools' dataset formats: Alpaca and ShareGPT, in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from helpers.errors import UserError
from helpers.rows import answer, check_rows, question

_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


def to_alpaca(rows: Sequence[dict]) -> list[dict[str, str]]:
    """Records with `instruction`, `input` and `output`: Alpaca knows one turn and no system prompt."""
    return [{"instruction": question(row), "input": "", "output": answer(row)} for row in rows]


def from_alpaca(records: Sequence[dict], system_prompt: str, where: object = "Alpaca data") -> list[dict]:
    """Rows of this project from Alpaca records. UserError names the first malformed record (from 1)."""
    rows = []
    for number, record in _records(records, where):
        texts = {}
        for key in ("instruction", "input", "output"):
            text = record.get(key, "" if key == "input" else None)
            if not isinstance(text, str):
                raise UserError(
                    f"'{key}' must be text",
                    f"{where}: record {number}",
                    "Alpaca records have instruction, input, output.",
                )
            texts[key] = text
        asked = "\n\n".join(text for text in (texts["instruction"], texts["input"]) if text.strip())
        rows.append(_row([("system", system_prompt), ("user", asked), ("assistant", texts["output"])], "alpaca"))
    check_rows(rows, where)
    return rows


def to_sharegpt(rows: Sequence[dict]) -> list[dict]:
    """Records with `conversations`: system, human and gpt in turn."""
    return [
        {
            "conversations": [
                {"from": _NAMES[message["role"]], "value": message["content"]} for message in row["messages"]
            ]
        }
        for row in rows
    ]


def from_sharegpt(records: Sequence[dict], system_prompt: str, where: object = "ShareGPT data") -> list[dict]:
    """Rows of this project from ShareGPT records; one without a system turn gets `system_prompt`."""
    rows = []
    for number, record in _records(records, where):
        place = f"{where}: record {number}"
        turns = record.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise UserError(
                "'conversations' must be a list",
                place,
                "ShareGPT records have conversations: [{from, value}].",
            )
        talk = []
        for turn in turns:
            role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
            if role is None or not isinstance(turn.get("value"), str):
                raise UserError(
                    "a turn must have `from` (system, human, gpt) and `value`", place, "Correct or drop it."
                )
            talk.append((role, turn["value"]))
        rows.append(_row(talk if talk[0][0] == "system" else [("system", system_prompt), *talk], "sharegpt"))
    check_rows(rows, where)
    return rows


def _records(records: object, where: object):
    if not isinstance(records, list | tuple):
        raise UserError("the data is not a list of records", where, "Write [{...}, {...}].")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise UserError("not an object", f"{where}: record {number}", "Write {...}.")
        yield number, record


def _row(talk: list[tuple[str, str]], source: str) -> dict:
    """A row about no fact. Its form is the question itself, so that equal questions stay in one split."""
    asked = "\n".join(text for role, text in talk if role == "user")
    return {
        "messages": [{"role": role, "content": text} for role, text in talk],
        "fact": None,
        "phrasing": f"{source}/{hashlib.sha256(asked.encode(errors='replace')).hexdigest()[:12]}",
        "kind": "general",
        "source": source,
        "keywords": [],
        "style": "plain",
        "split": "tune",
        "perspective": None,
    }
