"""Reads a small YAML file that a person wrote: plain text, lists and mappings, each with its line number.

YAML can do far more than a profile needs, and the rest is where files go wrong: `no` becomes False, 1_000
becomes 1000, an alias can unfold to gigabytes, a tag can name a Python class. Here every scalar is kept as it
was typed, and everything else is refused with its line.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from helpers.errors import UserError
from helpers.text import CONTROL

MAX_BYTES = 1_000_000
MAX_DEPTH = 8
MAX_NODES = 20_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Lines = dict[tuple[Hashable, ...], int]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, of at most MAX_BYTES. Raises UserError."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise UserError("is a folder, not a file", path, "Name the YAML file in it.")
        if not stat.S_ISREG(info.st_mode):
            raise UserError("is not a regular file", path, "Name a YAML file.")
        with path.open("rb") as file:  # one byte more than allowed: the size may change after stat()
            data = file.read(MAX_BYTES + 1) if info.st_size <= MAX_BYTES else b""
    except FileNotFoundError:
        raise UserError("no such file", path, "Check the path, or copy data/profiles/alex.yaml and edit it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(
            f"cannot be read ({getattr(error, 'strerror', None) or error})",
            path,
            "Check the path and the permissions.",
        ) from None
    if info.st_size > MAX_BYTES or len(data) > MAX_BYTES:
        raise UserError(
            f"the file is too big ({max(info.st_size, len(data)) / 1e6:.1f} MB; the most is 1 MB)",
            path,
            "A profile is a page of text: check that this is the right file.",
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError("the file is UTF-16 text, not UTF-8", f"{path}:1", "Save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"the file is not UTF-8 text (byte 0x{data[error.start]:02x})",
            f"{path}:{line}",
            "Save it as UTF-8.",
        ) from None
    if found := CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UserError(
            f"the file holds a control character (U+{ord(found.group()):04X})",
            f"{path}:{line}",
            "Delete it, or save the file as UTF-8 text.",
        )
    return text


class _Builder:
    """Builds the data from parser events in one pass; what no profile may hold is refused as it comes."""

    def __init__(self, path: Path, loader: Any):
        self.path, self.loader, self.lines, self.nodes = path, loader, {}, 0

    def fail(self, event: yaml.Event, what: str, mend: str) -> UserError:
        return UserError(what, f"{self.path}:{event.start_mark.line + 1}", mend)

    def document(self) -> Any:
        """The data of the only document; None when there is none."""
        data = None
        documents = 0
        while self.loader.check_event():
            event = self.loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fail(event, "a second YAML document begins here (---)", "Keep one profile a file.")
                data = self.node(self.loader.get_event(), ())
        return data

    def node(self, event: yaml.Event, at: tuple) -> Any:
        self.nodes += 1
        self.lines.setdefault(at, event.start_mark.line + 1)
        if self.nodes > MAX_NODES:
            raise self.fail(event, f"more than {MAX_NODES} entries", "A profile holds at most 200 facts.")
        if len(at) > MAX_DEPTH:
            raise self.fail(event, "nested too deeply", "Facts are flat: `- topic: city` and `value: Lund`.")
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise self.fail(
                event,
                "YAML anchors and aliases (& and *) are not allowed",
                "Write the text itself, in quotes if it begins with & or *.",
            )
        if event.tag:
            raise self.fail(
                event,
                "YAML tags (!) are not allowed",
                "Write the text itself, in quotes if it begins with !.",
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(at)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(at)
        return self.scalar(event, at)

    def mapping(self, at: tuple) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := self.loader.get_event(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.fail(event, "a key must be plain text", "Write `key: value`; quote text with brackets.")
            key = event.value
            if event.anchor or event.tag:
                self.node(event, (*at, key))  # refuses
            if key in data:
                raise self.fail(
                    event,
                    f"the key '{key}' stands twice (first on line {self.lines[*at, key]})",
                    "Delete one of the two.",
                )
            self.lines[*at, key] = event.start_mark.line + 1
            data[key] = self.node(self.loader.get_event(), (*at, key))
        return data

    def sequence(self, at: tuple) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := self.loader.get_event(), yaml.SequenceEndEvent):
            data.append(self.node(event, (*at, len(data))))
        return data

    def scalar(self, event: yaml.ScalarEvent, at: tuple) -> str | None:
        """The text as it was typed, numbers too. `no`, `yes` and `true` are refused: YAML's oldest trap."""
        if event.implicit[0]:
            tag = self.loader.resolve(yaml.ScalarNode, event.value, (True, False))
            if tag.endswith(":bool"):
                raise self.fail(
                    event,
                    f"YAML reads {event.value} as true/false, not as text",
                    f'Put it in quotes: "{event.value}".',
                )
            if tag.endswith(":null"):
                if not at:
                    return None
                what = f"'{at[-1]}' has no value" if isinstance(at[-1], str) else "an empty list entry"
                raise self.fail(event, what, "Write it, or delete the line.")
        return event.value


def load(path: Path | str) -> tuple[Any, Lines]:
    """(data, lines) of a YAML file: data of dict, list and str (None when empty), and the line of each part.

    `lines` is keyed by the path of the part: `lines["facts", 0, "value"]`. Problems are UserErrors.
    """
    path = Path(path)
    text = read_text(path)
    try:
        loader = _Loader(text)
        try:
            builder = _Builder(path, loader)
            return builder.document(), builder.lines
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = min(mark.line, text.count("\n")) + 1 if mark else 1
        problem = getattr(error, "problem", None) or "cannot be parsed"
        mend = (
            "Indent with spaces, not tabs."
            if "\t" in text.split("\n")[line - 1]
            else "Check the indentation, and put text with ': ' or '#' or brackets in quotes."
        )
        raise UserError(f"not valid YAML ({problem})", f"{path}:{line}", mend) from None
