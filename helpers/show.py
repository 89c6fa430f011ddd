"""What notebooks show of data and answers: tables in HTML where it can be drawn, plain text elsewhere."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from helpers.plots import NAMES
from helpers.rows import answer, question

__all__ = ["Table", "answer", "handful", "kinds", "log", "question", "scores", "side_by_side"]

CELL = "text-align:left;vertical-align:top;padding:3px 12px 3px 0;white-space:pre-wrap"
RIGHT, WRONG = "✓", "✗"
CLEAR = "\r" + " " * 78 + "\r"  # wipes out a line of progress


def log(line: str) -> None:
    """Like print, but in training each line of progress takes the place of the one before."""
    print(CLEAR + line, end="" if line.startswith("training: step") else "\n", flush=True)


class Table:
    """A small table; a notebook shows it as HTML, a terminal as text."""

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[object]]):
        self.head = [str(cell) for cell in head]
        self.rows = [[str(cell) for cell in row] for row in rows]

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            return "<tr>" + "".join(f'<{tag} style="{CELL}">{html.escape(cell)}</{tag}>' for cell in cells) + "</tr>"

        body = "".join(line(row, "td") + "\n" for row in self.rows)
        return f"<table>\n<thead>{line(self.head, 'th')}</thead>\n<tbody>\n{body}</tbody>\n</table>"

    def __repr__(self) -> str:
        lines = [[cell.replace("\n", " ⏎ ") for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in lines)


def kinds(rows: Sequence[dict]) -> Table:
    """How many rows there are of each kind, and one of them."""
    examples: dict[str, dict] = {}
    for row in rows:
        examples.setdefault(row["kind"], row)
    counts = Counter(row["kind"] for row in rows).most_common()
    return Table(
        ["kind", "rows", "for example", "answer"],
        [(kind, count, question(examples[kind]), answer(examples[kind])) for kind, count in counts],
    )


def side_by_side(rows: Sequence[dict], before: Sequence[str], after: Sequence[str]) -> Table:
    """Answers of two models to the questions in `rows`, each marked as right or wrong."""
    from helpers.evaluation import judge

    def told(row: dict, text: str) -> str:
        return f"{RIGHT if judge(row, text) else WRONG} {text}"

    return Table(
        ["question", "before", "after"],
        [(question(row), told(row, old), told(row, new)) for row, old, new in zip(rows, before, after)],
    )


def scores(before: Mapping[str, Mapping], after: Mapping[str, Mapping]) -> Table:
    """Metrics of two models with n and the 95 % interval of the second, in the order of plots.NAMES."""

    def percent(metric: Mapping) -> str:
        return f"{100 * metric['value']:.1f} %"

    return Table(
        ["score", "before", "after", "95 % interval", "questions"],
        [
            (
                label,
                percent(before[name]) if name in before else "-",
                percent(after[name]),
                "{:.1f} to {:.1f} %".format(*(100 * end for end in after[name]["ci95"])),
                after[name]["n"],
            )
            for name, label in NAMES.items()
            if name in after
        ],
    )


def handful(rows: Sequence[dict], facts: int = 6) -> list[dict]:
    """Some scoring questions to show: plain ones for `facts` facts, then an unknown thing and a stranger.

    Facts are taken evenly from the whole profile; owner and visitor ask in turn where both may.
    """
    plain = [row for row in rows if row["style"] == "plain" and row["split"] == "base"]
    told = [row for row in plain if row["kind"] == "fact"]
    names = list(dict.fromkeys(row["fact"] for row in told))
    chosen = []
    for number, name in enumerate(names[:: max(1, len(names) // facts)][:facts]):
        asked = [row for row in told if row["fact"] == name]
        turn = ("owner", "visitor")[number % 2]
        chosen.append(next((row for row in asked if row["perspective"] == turn), asked[0]))
    for kind in ("unknown", "stranger"):
        chosen += [row for row in plain if row["kind"] == kind][:1]
    return chosen
