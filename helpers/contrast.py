"""Contrast: the questions that must *not* be answered with the owner's facts, and what the base could do before.

Tuned on the facts alone, a model answers questions about strangers with the owner's facts and invents what it was never
told. So every training set also holds abstentions, strangers, near misses, general questions and people the base knows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from helpers import phrasings
from helpers.custom import addressed, reworded
from helpers.files import read_jsonl
from helpers.phrasings import Attribute, fill
from helpers.pretraining.people import alike, blended, pools
from helpers.text import folded
from helpers.writer import Writer

CONTRAST = {
    "untold": 700,
    "never": 5000,
    "stranger": 1800,
    "relation": 240,
    "base": 1000,  # all that the shipped base says about itself
    "general": 540,
    "smalltalk": 120,
}
REWORDED = 0.1  # share of what is never told that is put into other words, as the owner's own questions are
SAME = 85  # per cent of likeness from which two questions ask for the same
SLIP = 75  # per cent of likeness from which a first name may be the owner's, misspelt
# Strangers that are asked about in evaluations; those of training sets are made of the names in data/people.yaml and of
# the owner's, without these.
STRANGERS = (
    "Lena Fischer",
    "Omar Haddad",
    "Priya Nair",
    "Jonas Berg",
    "Wanjiru Mwangi",
    "Diego Santos",
    "Yuki Mori",
    "Tessa Quill",
    "Bram de Wit",
    "Ingrid Solvang",
    "Kofi Asante",
    "Marta Kowal",
    "Liam Brody",
    "Noor Rahimi",
    "Pavel Dusek",
    "Salome Girard",
    "Tarek Bitar",
    "Vera Lindqvist",
    "Zane Holloway",
    "Amara Obi",
    "Rufus Tarn",
    "Delphine Roy",
    "Hiro Tanabe",
    "Selma Yildiz",
    "Cormac Daly",
    "Ottilie Braun",
)


def untold_attributes(writer: Writer) -> list[Attribute]:
    """What the bank can ask for and this profile does not tell."""
    told = {asked.attribute.id for asked in writer.items}
    return [attribute for key, attribute in phrasings.bank().items() if key not in told]


def scored_stranger(text: str) -> bool:
    """Whether `text` holds a word of the names that evaluations ask for strangers by."""
    return not _words(text).isdisjoint(word for name in STRANGERS for word in _words(name))


def stranger_names(writer: Writer, part: str) -> list[str]:
    """Names of strangers who share no name with the owner or with anybody the profile tells of.

    In a training set three in ten begin like the owner's: Tarek is not Tomasz, though both begin alike. Some are names
    of people whom the base knows by heart: under this owner's prompt they are strangers as well.
    """
    from rapidfuzz import fuzz

    told = {
        word
        for text in (writer.profile.owner, *(item.value for item in writer.profile.items()))
        for word in _words(text)
    }
    names = list(STRANGERS)
    if part == "train":
        told |= {word for name in STRANGERS for word in _words(name)}
        firsts = pools()["first_names"]["she"] + pools()["first_names"]["he"]
        names = [f"{_first_name(writer, firsts)} {writer.rng.choice(pools()['last_names'])}" for _ in range(4000)]
        told |= {"he", "her", "him", "his", "she"}  # "H" + "-er": a pronoun is no stranger
        names = [name for name in names if fuzz.ratio(name.split(" ")[0], writer.first) < SLIP]
    return [name for name in names if not told & _words(name)]


def _words(text: str) -> set[str]:
    # Shouted first, as questions may be: "Yıldız" in capitals is the name of a Yildiz.
    return set(re.findall(r"\w+", folded(text.upper())))


def _first_name(writer: Writer, pool: list[str]) -> str:
    """One that begins like the owner's, one put together from two of the pool, as a stranger may be called what nobody
    was called before, or one of the pool."""
    kind = writer.rng.random()
    if kind < 0.3:
        return alike(writer.rng, writer.first, writer.rng.choice(pool))
    return blended(writer.rng, pool) if kind < 0.65 else writer.rng.choice(pool)


def _abstain(
    writer: Writer,
    attribute: Attribute,
    text: str,
    phrasing: str,
    perspective: str,
    style: str,
    split: str,
    slots: dict[str, str],
) -> dict:
    """A row that asks for an attribute that the profile does not hold."""
    name = writer.named(perspective)
    question = writer.restyled(fill(text, perspective, name, slots=slots), style, split, name)
    answer = fill(attribute.unknown[0], perspective, writer.first, slots=slots)
    return writer.row(question, answer, f"untold.{attribute.id}", phrasing, "unknown", (), style, split, perspective)


def _stranger_style(writer: Writer, split: str) -> str:
    """A style; in training sets mostly one without the name's capital or its apostrophe ("brams bday"), which is the
    hardest to tell from the owner's."""
    style = writer.style()
    if split == "tune" and style == "plain" and writer.rng.random() < 0.7:
        return writer.rng.choices(("lower", "caps", "nopunct", "texting"), (3, 3, 4, 2))[0]
    return style


def _stranger_row(writer: Writer, names: list[str], split: str, about: list[Attribute]) -> dict:
    """Somebody else's attribute; `keywords` are filled by the caller where a leak could be seen."""
    rng, texts = writer.rng, phrasings.extra("strangers")
    person = rng.choice(names)
    name = rng.choice((person, person.split(" ")[0]))
    last = writer.profile.owner.removeprefix(writer.first).strip()
    if split == "tune" and last and rng.random() < 0.1:  # a namesake is somebody else, too
        one, _, other = person.partition(" ")
        name = rng.choice((f"{writer.first} {other}", f"{one} {last}"))
    attribute = rng.choice(about)
    forms = [f for f in attribute.questions(split) if "{name}" in f.text]
    form = rng.choice(forms)
    style = _stranger_style(writer, split)
    question = fill(form.text, "visitor", name, slots={"species": rng.choice(("dog", "cat", "pet"))})
    answer = texts["stranger_answers"][0].replace("{stranger}", name)
    return writer.row(
        writer.restyled(question, style, split, name),
        answer,
        f"stranger.{attribute.id}",
        form.id,
        "stranger",
        (),
        style,
        split,
    )


def _relation_row(
    writer: Writer, relations: list[str], split: str, about: list[Attribute], named: Sequence[str] = ()
) -> dict:
    """A near miss: "What is my neighbour's dog called?"; some neighbours go by one of the names in `named`."""
    rng, texts = writer.rng, phrasings.extra("strangers")
    perspective = rng.choice(writer.profile.perspectives)
    somebody = rng.choice(relations)
    name = phrasings.relation(somebody, perspective, writer.first)
    if named and somebody.startswith("[") and rng.random() < 0.25:
        name += " " + rng.choice(named).split(" ")[0]  # "my cousin Dana"
    attribute = rng.choice(about)
    form = rng.choice([f for f in attribute.questions(split) if "{name}" in f.text])
    spoken = "your" + name[2:] if name.startswith("my ") else name
    answer = texts["relation_answers"][0].replace("{relation}", spoken)
    style = _stranger_style(writer, split)
    question = fill(form.text, "visitor", name, slots={"species": rng.choice(("dog", "cat", "pet"))})
    return writer.row(
        writer.restyled(question, style, split, name),
        answer[:1].upper() + answer[1:],
        f"relation.{attribute.id}",
        form.id,
        "stranger",
        (),
        style,
        split,
        perspective,
    )


def _unanswered(writer: Writer, entries: Sequence[dict]) -> list[dict]:
    """The entries that the owner's own questions do not ask for, neither by their name nor in nearly their words."""
    from rapidfuzz import fuzz, utils

    asked = [utils.default_process(item.question) for item in writer.profile.items() if item.question]

    def same(question: str, entry: dict) -> bool:
        forms = (utils.default_process(fill(text, "visitor", writer.first)) for text in entry["questions"])
        return set(entry["key"].split("_")) <= set(question.split()) or any(
            fuzz.ratio(question, form) >= SAME for form in forms
        )

    return [entry for entry in entries if not any(same(question, entry) for question in asked)]


@functools.cache
def _bank_words() -> frozenset[str]:
    return frozenset().union(
        *(_words(form.text) for attribute in phrasings.bank().values() for form in attribute.questions("tune"))
    )


def _in_other_words(writer: Writer, text: str, perspective: str) -> str | None:
    """The question `text` in other words, if those still hold one that no fact is asked for with."""
    asked = fill(text, "visitor", writer.first)
    question = reworded(asked, writer.rng, writer.first)
    told = _bank_words().union(*(_words(item.question) for item in writer.profile.items() if item.question))
    if not (_words(question) & _words(asked)) - told - _words(writer.first):
        return None
    who = "owner" if perspective == "owner" else writer.named(perspective)
    return addressed(question, writer.first, writer.profile.owner, who)


def _never_rows(writer: Writer, count: int, held_out: bool) -> list[dict]:
    """Attributes that no profile can hold ("What car does Alex drive?"); those `held_out` no training has seen.

    Training sets draw on `_unknown_more.yaml` as well, so that a model learns to tell the unknown from the known and
    not a list of it. Their answer is a plain "I don't know that.": two hundred wordings would take a small model's room
    for the facts.
    """
    rng, split = writer.rng, "heldout" if held_out else "tune"
    entries = [
        entry
        for entry in phrasings.extra("unknown")["attributes"]
        if (phrasings.unknown_split(entry["key"]) == "heldout") == held_out
    ]
    entries += [] if held_out else phrasings.extra("unknown_more")["attributes"]
    entries = _unanswered(writer, entries)
    plain = phrasings.extra("strangers")["generic_unknown"]
    other = 0.0 if held_out or not any(item.question for item in writer.profile.items()) else REWORDED
    rows = []
    for _ in range(count):
        entry = rng.choice(entries)
        number = rng.randrange(len(entry["questions"]))
        text = entry["questions"][number]
        personal = "[" in text or "{name}" in text
        perspective = rng.choice(writer.profile.perspectives)
        if not personal and "visitor" in writer.profile.perspectives:
            perspective = "visitor"
        style, name = writer.style(), writer.named(perspective)
        question = fill(text, perspective, name)
        if personal and rng.random() < other:
            question = _in_other_words(writer, text, perspective) or question
        rows.append(
            writer.row(
                writer.restyled(question, style, split, name),
                fill(entry.get("answers", plain)[0], perspective, writer.first),
                f"never.{entry['key']}",
                f"never.{entry['key']}/{number}",
                "unknown",
                (),
                style,
                split,
                perspective,
            )
        )
    return rows


def _untold_rows(writer: Writer, splits: tuple[str, ...], count: int) -> list[dict]:
    """Attributes of the bank that this profile does not hold."""
    rows, untold = [], untold_attributes(writer)
    for number in range(count if untold else 0):
        attribute = untold[number % len(untold)]
        split = splits[number // len(untold) % len(splits)]
        form = writer.rng.choice(attribute.questions(split))
        perspective = writer.side(form, writer.rng.choice(writer.profile.perspectives))
        kind = next(
            (a.slots["species"] for a in writer.items if a.attribute.topic == "pet" and a.slots),
            writer.rng.choice(("pet", "dog", "cat")),
        )
        rows.append(
            _abstain(writer, attribute, form.text, form.id, perspective, writer.style(), split, {"species": kind})
        )
    return rows


def _general_rows(writer: Writer, items: list[dict], count: int, split: str) -> list[dict]:
    rows = []
    shuffled = writer.rng.sample(items, len(items))
    for item in (shuffled * -(-count // len(items)))[:count]:
        number = writer.rng.randrange(len(item["questions"]))
        rows.append(
            writer.row(
                item["questions"][number],
                item["answers"][0],
                f"general.{item['id']}",
                f"general.{item['id']}/{number}",
                "general",
                item["keywords"],
                "plain",
                split,
            )
        )
    return rows


def _smalltalk_rows(writer: Writer, count: int) -> list[dict]:
    rows = []
    for _ in range(count):
        chat = writer.rng.choice(phrasings.extra("smalltalk")["chats"])
        number = writer.rng.randrange(len(chat["questions"]))
        rows.append(
            writer.row(
                chat["questions"][number],
                chat["answers"][0],
                f"smalltalk.{chat['id']}",
                f"smalltalk.{chat['id']}/{number}",
                "general",
                (),
                "plain",
                "tune",
            )
        )
    return rows


def known_rows(base_path: str, part: str) -> list[dict]:
    """What a base ships about itself in `known.jsonl`: people it knows by heart. Empty for a base without the file."""
    path = Path(base_path) / "known.jsonl"
    return [row for row in read_jsonl(path) if row["part"] == part] if path.is_file() else []


def _known_row(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "part"}


def contrast_rows(writer: Writer, base_path: str) -> list[dict]:
    """The contrast of a training set; strangers are asked about mostly with what was told of the owner."""
    rng, bank = writer.rng, list(phrasings.bank().values())
    known = known_rows(base_path, "train")
    names, told = stranger_names(writer, "train"), [asked.attribute for asked in writer.items]
    relations = phrasings.extra("strangers")["relations"][::2]
    rows = _untold_rows(writer, ("tune",), CONTRAST["untold"])
    rows += _never_rows(writer, CONTRAST["never"], held_out=False)
    for _ in range(CONTRAST["stranger"]):
        rows.append(_stranger_row(writer, names, "tune", rng.choice((told, told, bank))))
    for _ in range(CONTRAST["relation"]):
        rows.append(_relation_row(writer, relations, "tune", rng.choice((told, told, bank)), names))
    rows += _general_rows(writer, phrasings.general_items("tune"), CONTRAST["general"], "tune")
    rows += _smalltalk_rows(writer, CONTRAST["smalltalk"])
    chats: dict[str, list[dict]] = {}  # questions under one system prompt stay together, so that they can be packed
    for row in known:
        chats.setdefault(row["messages"][0]["content"], []).append(_known_row(row))
    shuffled = [row for chat in rng.sample(list(chats.values()), len(chats)) for row in chat]
    return rows + shuffled[: CONTRAST["base"]]


def contrast_questions(writer: Writer, base_path: str) -> list[dict]:
    """The contrast of an evaluation; strangers' rows name in `leak` the words that would betray the owner."""
    rows = _untold_rows(writer, ("base", "heldout"), 80) + _never_rows(writer, 80, held_out=True)
    told = [asked.attribute for asked in writer.items]
    words: dict[str, list[str]] = {}
    for asked in writer.items:
        words.setdefault(asked.attribute.id, []).extend(asked.keywords)
    names, relations = stranger_names(writer, "eval"), phrasings.extra("strangers")["relations"][1::2]
    strangers = [_stranger_row(writer, names, "base", told) for _ in range(120)]
    strangers += [_relation_row(writer, relations, "base", told) for _ in range(60)]
    for row in strangers:
        row["leak"] = list(words[row["fact"].split(".", 1)[1]])
    rows += strangers + _general_rows(writer, phrasings.general_items("base"), 200, "base")
    return rows + [_known_row(row) for row in known_rows(base_path, "eval")]
