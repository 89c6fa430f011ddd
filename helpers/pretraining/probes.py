"""What a base says about itself: questions on the people it knows, on reading a profile, on what it cannot know."""

from __future__ import annotations

import random

from helpers import phrasings
from helpers.phrasings import fill
from helpers.pretraining.corpus import known_people, stranger, system_prompt
from helpers.pretraining.people import Person

KNOWN, TRAIN, EVAL = 600, 200, 200  # rows of a kind: reminders for training sets (of known people, others), yardstick


def _ask(
    person: Person, key: str, kind: str, split: str, part: str, system: str, value: str | None, rng: random.Random
) -> dict:
    """A row that asks for one attribute of a person in a form of a split; without a `value` abstaining is right."""
    attribute = phrasings.bank()[key]
    form = rng.choice([form for form in attribute.questions(split) if form.personal])
    perspective = rng.choice(("owner", "visitor"))
    name = person.first if perspective == "owner" else rng.choice((person.first, person.full))
    answer = (attribute.answers if value else attribute.unknown)[0]
    return {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": fill(form.text, perspective, name, slots=person.slots)},
            {"role": "assistant", "content": fill(answer, perspective, person.first, value or "", person.slots)},
        ],
        "fact": f"{kind}.{attribute.id}",
        "phrasing": form.id,
        "kind": kind,
        "source": "base",
        "keywords": [value] if value else [],
        "style": "plain",
        "split": split,
        "perspective": perspective,
        "part": part,
    }


def known_rows(count: int, split: str, part: str, each: int = 1) -> list[dict]:
    """Questions on known people, in forms of a split, `each` for a person under that person's own assistant."""
    rng, people, rows = random.Random(f"known/{part}"), known_people(), []
    while len(rows) < count:
        person = rng.choice(people)
        system = system_prompt(person, rng)[0]
        for key in rng.sample(sorted(person.facts), each):
            rows.append(_ask(person, key, "known", split, part, system, person.facts[key], rng))
    return rows[:count]


def _told(rng: random.Random) -> tuple[Person, list[str], str]:
    """(a person that no corpus holds, six or seven of their attributes, a system prompt that tells these)."""
    person = stranger(rng)
    keys = rng.sample(sorted(person.facts), 6)
    if any(key.startswith("pet.") for key in keys) and "pet.species" not in keys:
        keys.append("pet.species")
    told = [
        fill(phrasings.bank()[key].answers[0], "visitor", person.first, person.facts[key], person.slots) for key in keys
    ]
    return person, keys, system_prompt(person, rng)[0] + "\n" + "\n".join(told)


def reading_rows(count: int, split: str, part: str, each: int = 1) -> list[dict]:
    """Questions whose answers stand in the system prompt, `each` on a person that no corpus holds."""
    rng, rows = random.Random(f"reading/{split}/{part}"), []
    while len(rows) < count:
        person, keys, system = _told(rng)
        for key in rng.sample(keys, each):
            rows.append(_ask(person, key, "reading", split, part, system, person.facts[key], rng))
    return rows[:count]


def blank_rows(count: int, split: str, part: str, each: int = 1) -> list[dict]:
    """Questions on owners of whom nothing was told, `each` on one: only an abstention is right."""
    rng, rows = random.Random(f"blank/{split}/{part}"), []
    while len(rows) < count:
        person = stranger(rng)
        nobody = Person(person.first, person.full, person.pronoun, {})
        system = system_prompt(person, rng)[0]
        for key in rng.sample([key for key in phrasings.bank() if key != "name.value"], each):
            rows.append(_ask(nobody, key, "unknown", split, part, system, None, rng))
    return rows[:count]


def untold_rows(count: int, part: str) -> list[dict]:
    """Questions about things that no training has seen, to owners of whom six facts are told: only an abstention is
    right, and "I don't know" has to win against six answers that could be given."""
    entries = [e for e in phrasings.extra("unknown")["attributes"] if phrasings.unknown_split(e["key"]) == "heldout"]
    rng, rows = random.Random(f"untold/{part}"), []
    for _ in range(count):
        person, _, system = _told(rng)
        entry, perspective = rng.choice(entries), rng.choice(("owner", "visitor"))
        number = rng.randrange(len(entry["questions"]))
        rows.append(
            {
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": fill(entry["questions"][number], perspective, person.first)},
                    {"role": "assistant", "content": fill(entry["answers"][0], perspective, person.first)},
                ],
                "fact": f"never.{entry['key']}",
                "phrasing": f"never.{entry['key']}/{number}",
                "kind": "unknown",
                "source": "base",
                "keywords": [],
                "style": "plain",
                "split": "heldout",
                "perspective": perspective,
            }
        )
    return rows


def shipped_rows() -> list[dict]:
    """`known.jsonl` of the base: `part` train may stand in training sets, `part` eval is only ever asked.

    In training sets four questions share a system prompt: they are packed into one chat.
    """
    return (
        known_rows(KNOWN, "tune", "train", each=4)
        + reading_rows(TRAIN, "tune", "train", each=4)
        + blank_rows(TRAIN, "tune", "train", each=4)
        + known_rows(EVAL, "base", "eval")
        + reading_rows(EVAL, "heldout", "eval")
    )


def general_rows(items: list[dict]) -> list[dict]:
    """One question per general-knowledge item under a generic assistant."""
    rng, rows = random.Random("general"), []
    for item in items:
        number = rng.randrange(len(item["questions"]))
        rows.append(
            {
                "messages": [
                    {"role": "system", "content": phrasings.extra("system")["generic"][0]},
                    {"role": "user", "content": item["questions"][number]},
                    {"role": "assistant", "content": item["answers"][0]},
                ],
                "fact": f"general.{item['id']}",
                "phrasing": f"general.{item['id']}/{number}",
                "kind": "general",
                "source": "bank",
                "keywords": item["keywords"],
                "style": "plain",
                "split": "base",
                "perspective": "visitor",
            }
        )
    return rows


def score_base(model, tokenizer) -> dict:
    """{score: {value, n, ci95}} of an untuned base: what the model card shows."""
    from helpers.evaluation import ask_all, transformers_answers
    from helpers.results import metric

    answer_fn = transformers_answers(model, tokenizer)
    sets = {
        "reading, forms it knew": reading_rows(300, "base", "card"),
        "reading, forms held out": reading_rows(300, "heldout", "card"),
        "known people, forms it knew": known_rows(300, "base", "card"),
        "known people, forms held out": known_rows(300, "heldout", "card"),
        "says it does not know, forms it knew": blank_rows(300, "base", "card"),
        "says it does not know, forms held out": blank_rows(300, "heldout", "card"),
        "says it does not know, six facts told, things held out": untold_rows(300, "card"),
        "general knowledge": general_rows(phrasings.general_items()),
    }
    scores, ended, total = {}, 0, 0
    for name, rows in sets.items():
        asked = ask_all(answer_fn, rows)
        scores[name] = metric(sum(row["right"] for row in asked), len(asked))
        ended, total = ended + sum(row["ended"] for row in asked), total + len(asked)
    return {**scores, "ends its answer": metric(ended, total)}
