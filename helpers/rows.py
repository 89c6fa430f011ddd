"""The form of a dataset row, and the check that every row keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helpers.errors import UserError
from helpers.text import CONTROL, MARKER, closest, contains

KINDS = ("fact", "combined", "identity", "unknown", "stranger", "known", "general", "style", "reading")
SPLITS = ("base", "tune", "heldout")
PERSPECTIVES = ("owner", "visitor")
REQUIRED = ("messages", "fact", "phrasing", "kind", "source", "keywords")


def question(row: dict) -> str:
    """The last thing the user says in a row."""
    return next(message["content"] for message in reversed(row["messages"]) if message["role"] == "user")


def answer(row: dict) -> str:
    """The reply that the row teaches or expects."""
    return row["messages"][-1]["content"]


def _check_messages(messages: object) -> str | None:
    """What is wrong with the conversation of a row, or None."""
    if not isinstance(messages, list) or len(messages) < 3 or len(messages) % 2 == 0:
        return "'messages' must be a list: system, user, assistant"
    roles = ["system"] + ["user", "assistant"] * (len(messages) // 2)
    for message, role in zip(messages, roles, strict=True):
        if not isinstance(message, dict) or message.get("role") != role:
            return f"'messages' must be system, user, assistant in turn; here {role} is expected"
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            return f"the {role} message has no text"
        if found := MARKER.search(content):
            return f"the {role} message holds the chat marker {found.group()}"
        if found := CONTROL.search(content):
            return f"the {role} message holds a control character (U+{ord(found.group()):04X})"
    return None


def _check_fields(row: dict) -> str | None:
    for key in REQUIRED:
        if key not in row:
            wrong = closest(key, [str(other) for other in row if other not in REQUIRED])
            return f"'{key}' is missing" + (f" (is '{wrong}' meant to be it?)" if wrong else "")
    fact = row["fact"]
    if not (
        fact is None or isinstance(fact, str) or (isinstance(fact, list) and all(isinstance(f, str) for f in fact))
    ):
        return "'fact' must be text, a list of texts or null"
    for key in ("phrasing", "source"):
        if not isinstance(row[key], str) or not row[key]:
            return f"'{key}' must be text"
    keywords = row["keywords"]
    if not isinstance(keywords, list) or not all(isinstance(word, str) and word.strip() for word in keywords):
        return "'keywords' must be a list of texts"
    for key, allowed in (("kind", KINDS), ("split", SPLITS), ("perspective", (*PERSPECTIVES, None))):
        if key in row and row[key] not in allowed:
            return f"'{key}' is {row[key]!r:.40}, not one of {', '.join(filter(None, allowed))}"
    if not isinstance(row.get("style", ""), str):
        return "'style' must be text"
    leak = row.get("leak", [])
    if not isinstance(leak, list) or not all(isinstance(word, str) for word in leak):
        return "'leak' must be a list of texts"
    return None


def check_rows(rows: Sequence[dict], where: object = "dataset") -> None:
    """Raise UserError, naming `where` and the row (from 1), for the first row that is not well formed.

    A row has `messages` (system, user, assistant) and the fields of REQUIRED; `style`, `split`, `leak`,
    `perspective` and `id` are checked where they stand. Every keyword must stand in the answer, an `id` once.
    """
    if not rows:
        raise UserError("there are no rows", where, "Write one {...} object a line.")
    ids: dict[object, int] = {}
    for number, row in enumerate(rows, 1):
        place = f"{where}: row {number}"
        if not isinstance(row, dict):
            raise UserError(
                "not an object", place, "Write {...} with messages, fact, phrasing, kind, source, keywords."
            )
        if wrong := _check_fields(row) or _check_messages(row["messages"]):
            raise UserError(wrong, place, "See the dataset card for the form of a row.")
        if missing := [word for word in row["keywords"] if not contains(answer(row), word)]:
            raise UserError(
                f"the keyword {missing[0]!r} does not stand in the answer", place, "Correct one of the two."
            )
        if "id" in row and (first := ids.setdefault(str(row["id"]), number)) != number:
            raise UserError(
                f"the id {str(row['id'])!r:.60} stands twice (first in row {first})",
                place,
                "Give each row its own.",
            )


def fact_name(row: dict) -> str:
    """The fact that a row is about, as one text; combined rows name several."""
    fact = row["fact"]
    return " + ".join(fact) if isinstance(fact, list) else fact or "(none)"


def filled(rows: Iterable[dict]) -> list[dict]:
    """Checked rows with the fields that scoring needs; what is missing is as in a plain held-out question."""
    return [
        {"style": "plain", "split": "heldout", "perspective": "visitor", **row, "fact": fact_name(row)} for row in rows
    ]
