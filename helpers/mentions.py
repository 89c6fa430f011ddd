"""Questions that say a value themselves: a guess at a fact ("Does Alex live in Boston?"), one fact of a thing by
another ("What do I do at Northwind Labs?"). Their forms stand in `data/phrasings/_mentions.yaml`; one in five is held
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from helpers import phrasings
from helpers.contrast import scored_stranger, stranger_names, untold_attributes
from helpers.evaluation import is_right
from helpers.phrasings import Attribute, Form, fill
from helpers.pretraining.people import invent
from helpers.text import with_articles
from helpers.writer import Asked, Writer

GUESSES, BESIDES = 10, 40  # forms per fact and perspective in a training set
UNTOLD, OF_OTHERS = 60, 60  # its guesses at what is not told, and about somebody else


@dataclass(frozen=True)
class Mention:
    """A question form and the value that it says."""

    text: str
    said: str
    perspective: str
    phrasing: str


def _part(forms: list[str], held_out: bool) -> list[tuple[int, str]]:
    return [(number, text) for number, text in enumerate(forms) if (number % 5 == 4) == held_out]


def _sides(writer: Writer, text: str) -> list[str]:
    """The perspectives in which a form may be asked; one that names nobody is asked in one of them alone."""
    return [p for p in writer.profile.perspectives if writer.side(Form("", text, ""), p) == p]


def _other_value(writer: Writer, attribute: Attribute, told: str = "") -> str:
    """Another person's value of an attribute; "1 years" is no guess, and evaluations ask of people by these names."""
    while (value := invent(writer.rng).facts[attribute.id]) in (told, "1") or scored_stranger(value):
        pass
    return value


def _guesses(writer: Writer, asked: Asked, held_out: bool) -> Iterator[Mention]:
    """Guesses at a fact, every second of them right."""
    attribute = asked.attribute
    forms = _part(phrasings.extra("mentions")["guesses"][attribute.id], held_out)
    forms = [(number, text) for number, text in forms if writer.clear(attribute, text)]
    for place, (number, text) in enumerate(writer.rng.sample(forms, min(len(forms), 2 if held_out else GUESSES))):
        for perspective in _sides(writer, text):
            said = asked.value if place % 2 else _other_value(writer, attribute, asked.value)
            yield Mention(text, said, perspective, f"guess.{attribute.id}/{number}")


def _besides(writer: Writer, asked: Asked, held_out: bool) -> Iterator[Mention]:
    """A fact asked for by another of the same job or education."""
    for key, forms in phrasings.extra("mentions")["beside"].items():
        wanted, _, other = key.partition("+")
        if wanted == asked.attribute.id and other in asked.beside:
            chosen = _part(forms, held_out)
            for number, text in writer.rng.sample(chosen, min(len(chosen), 2 if held_out else BESIDES)):
                text = text.replace("{" + other + "}", "{value}")
                for perspective in _sides(writer, text):
                    yield Mention(text, asked.beside[other], perspective, f"beside.{key}/{number}")


def _row(
    writer: Writer,
    one: Mention,
    name: str,
    answer: str,
    fact: str,
    kind: str,
    slots: dict[str, str],
    keywords: tuple[str, ...] = (),
    held_out: bool = False,
) -> dict:
    """A row about `name` whose question says a value; an evaluation asks as written."""
    question, split = with_articles(fill(one.text, one.perspective, name, one.said, slots)), "base"
    if not held_out:
        question, split = writer.restyled(question, writer.style(), "tune", f"{name} {one.said}"), "tune"
    return writer.row(question, answer, fact, one.phrasing, kind, keywords, "mention", split, one.perspective)


def _told_rows(writer: Writer, asked: Asked, held_out: bool) -> list[dict]:
    """Questions about a fact that say a value, answered with the fact."""
    rows = []
    for one in (*_guesses(writer, asked, held_out), *_besides(writer, asked, held_out)):
        answer = fill(asked.attribute.answers[0], one.perspective, writer.first, asked.value, asked.slots)
        name = writer.named(one.perspective)
        row = _row(writer, one, name, answer, asked.id, "fact", asked.slots, asked.keywords, held_out)
        if one.phrasing.startswith("guess.") or not is_right(row["messages"][1]["content"], asked.keywords):
            rows.append(row)
    return rows


def _contrast_rows(writer: Writer) -> list[dict]:
    """Training rows that guess at what is not told, and at facts of somebody else."""
    rng, rows, guesses = writer.rng, [], phrasings.extra("mentions")["guesses"]
    untold = untold_attributes(writer)
    for place in range(UNTOLD if untold else 0):
        attribute, slots = untold[place % len(untold)], {"species": rng.choice(("pet", "dog", "cat"))}
        number, text = rng.choice(_part(guesses[attribute.id], False))
        side, said = rng.choice(_sides(writer, text)), _other_value(writer, attribute)
        one = Mention(text, said, side, f"guess.{attribute.id}/{number}")
        answer = fill(attribute.unknown[0], side, writer.first, slots=slots)
        rows.append(_row(writer, one, writer.named(side), answer, f"untold.{attribute.id}", "unknown", slots))
    names, answer = stranger_names(writer, "train"), phrasings.extra("strangers")["stranger_answers"][0]
    others = [asked for asked in writer.items if asked.attribute.topic != "name"]  # "your owner" is no stranger
    for _ in range(OF_OTHERS if others else 0):
        asked, person = rng.choice(others), rng.choice(names)
        name, slots = rng.choice((person, person.split(" ")[0])), {"species": rng.choice(("dog", "cat"))}
        number, text = rng.choice([form for form in _part(guesses[asked.attribute.id], False) if "{name}" in form[1]])
        said = rng.choice((asked.value, _other_value(writer, asked.attribute)))
        one = Mention(text, said, "visitor", f"guess.{asked.attribute.id}/{number}")
        about = f"stranger.{asked.attribute.id}"
        rows.append(_row(writer, one, name, answer.replace("{stranger}", name), about, "stranger", slots))
    return rows


def mention_rows(writer: Writer, held_out: bool) -> list[dict]:
    """All rows of a training set whose questions say a value, or the held-out ones of an evaluation."""
    rows = [row for asked in writer.items for row in _told_rows(writer, asked, held_out)]
    return rows if held_out else rows + _contrast_rows(writer)
