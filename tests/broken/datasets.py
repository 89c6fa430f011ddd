"""Broken question files: name -> (bytes, words that the message must hold)."""

from __future__ import annotations

import json

ROW = {
    "messages": [
        {"role": "system", "content": "You are Alex's AI assistant."},
        {"role": "user", "content": "What is Alex's dog called?"},
        {"role": "assistant", "content": "Alex's dog is called Buddy."},
    ],
    "fact": "pet.1.name",
    "phrasing": "pet.name/000001",
    "kind": "fact",
    "source": "bank",
    "keywords": ["Buddy"],
    "style": "plain",
    "split": "heldout",
    "perspective": "visitor",
}


def row(**changes) -> dict:
    """A good row with some fields replaced; a field set to `...` is left out."""
    return {key: value for key, value in {**ROW, **changes}.items() if value is not ...}


def said(role_index: int, **changes) -> dict:
    """A good row with one message changed."""
    messages = [dict(message) for message in ROW["messages"]]
    messages[role_index].update(changes)
    return row(messages=messages)


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


DATASETS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no rows"),
    "blank_lines": (b"\n\n", "no rows"),
    "not_json": (lines(ROW) + b"{oops\n", ":2"),
    "yaml_instead": (b"owner: Alex\n", ":1"),
    "list_rows": (lines([1, 2]), "not a JSON object"),
    "cut_in_the_middle": (lines(ROW)[:-30], "not a JSON object"),
    "utf16": ("\ufeff{}".encode("utf-16"), "UTF-8"),
    "latin1": (b'{"a": "\xf6"}\n', "UTF-8"),
    "nul_bytes": (b"\0" * 100, "not a JSON object"),
    "deep_nesting": (b'{"a":' * 100_000, "not a JSON object"),
    "ten_megabytes_of_one_line": (b'{"messages": "' + b"x" * 10_000_000 + b'"}', "missing"),
    "no_messages": (lines(row(messages=...)), "row 1: 'messages' is missing"),
    "messages_is_text": (lines(row(messages="hello")), "row 1: 'messages' must be a list"),
    "no_answer": (lines(row(messages=ROW["messages"][:2])), "system, user, assistant"),
    "no_system_message": (lines(row(messages=[*ROW["messages"][1:], ROW["messages"][1]])), "system"),
    "roles_swapped": (lines(ROW, said(1, role="assistant")), "row 2: 'messages' must be"),
    "message_is_text": (lines(row(messages=["a", "b", "c"])), "in turn"),
    "empty_answer": (lines(said(2, content=" ")), "assistant message has no text"),
    "content_is_a_number": (lines(said(1, content=7)), "user message has no text"),
    "chat_marker": (lines(said(1, content="hi<|im_end|>")), "<|im_end|>"),
    "half_character": (lines(said(1, content="\ud800")), "U+D800"),
    "control_character": (lines(said(1, content="a\x00b")), "U+0000"),
    "misspelt_field": (lines({**row(keywords=...), "keyword": ["Buddy"]}), "is 'keyword' meant"),
    "keywords_is_text": (lines(row(keywords="Buddy")), "'keywords' must be a list"),
    "empty_keyword": (lines(row(keywords=[" "])), "'keywords' must be a list"),
    "keyword_not_in_answer": (lines(row(keywords=["Rex"])), "'Rex' does not stand"),
    "fact_is_a_number": (lines(row(fact=3)), "'fact' must be text"),
    "phrasing_is_null": (lines(row(phrasing=None)), "'phrasing' must be text"),
    "unknown_kind": (lines(row(kind="facts")), "'kind' is 'facts'"),
    "kind_is_a_list": (lines(row(kind=["fact"])), "'kind' is"),
    "unknown_split": (lines(row(split="test")), "'split' is 'test'"),
    "unknown_perspective": (lines(row(perspective="guest")), "'perspective' is"),
    "style_is_a_number": (lines(row(style=1)), "'style' must be text"),
    "leak_is_text": (lines(row(kind="stranger", leak="Buddy")), "'leak' must be a list"),
    "duplicate_ids": (
        lines(row(id="q1"), row(id="q2"), row(id="q1")),
        "row 3: the id 'q1' stands twice (first in row 1)",
    ),
}
