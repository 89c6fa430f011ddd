"""Invented people: every value that a profile may hold, from pools in `data/people.yaml` and from syllables."""

from __future__ import annotations

import functools
import random
import re
import unicodedata
from dataclasses import dataclass, field

from helpers.models import ROOT
from helpers.phrasings import load_yaml
from helpers.text import spoken

_STARTS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t tr v w y z th".split()
_VOWELS = "a e i o u a e o ai ea ee ia io ou".split()
_ENDS = "n r l s m t k th nd rn x ck ll ss v d".split()
_MONTHS = ("January February March April May June July August September October November December").split()


@dataclass
class Person:
    """A fictional person. `facts` maps an attribute id of the bank to its value."""

    first: str
    full: str
    pronoun: str
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> dict[str, str]:
        return {"species": self.facts.get("pet.species", "pet")}


@functools.cache
def pools() -> dict:
    return load_yaml(ROOT / "data" / "people.yaml")


def invented(rng: random.Random, syllables: int = 2) -> str:
    """A pronounceable word that stands in no list, so that copying is learned and not a vocabulary."""
    word = "".join(rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(syllables))
    return (word + (rng.choice(_ENDS) if rng.random() < 0.6 else "")).capitalize()


def blended(rng: random.Random, pool: list[str]) -> str:
    """A name put together from two of a pool ("Marta", "Helena" -> "Marena"): new, yet in the manner of names."""
    one, two = rng.sample(pool, 2)
    return one[: rng.choice((2, 3, 3, 4))] + two[-rng.choice((2, 3, 3, 4)) :].lower()


def alike(rng: random.Random, first: str, other: str) -> str:
    """A name that begins like `first` and ends like `other` ("Tomasz", "Marek" -> "Tomrek"): near, yet not the same."""
    return first[: rng.choice((1, 1, 1, 2, 3))] + other[-rng.choice((2, 3, 3, 4)) :].lower()


# First and last letters of scripts: every byte that UTF-8 uses has to be written now and then. Bytes never seen keep
# nearly equal embeddings, and a tuned model takes one for the other.
_SCRIPTS = ("ΑΩ", "αω", "АЯ", "ая", "Աֆ", "את", "بي", "कह", "กฮ", "ぁん", "ァン", "一鿿", "가힣", "Ḁỹ", "☀➿", "🌀🧿")


@functools.cache
def _letters(first: str, last: str) -> list[str]:
    return [
        c for c in map(chr, range(ord(first), ord(last) + 1)) if unicodedata.category(c) in ("Ll", "Lu", "Lo", "So")
    ]


def foreign(rng: random.Random) -> str:
    """Two to five letters of one script, in no language's order."""
    letters = _letters(*rng.choice(_SCRIPTS))
    return "".join(rng.choices(letters, k=rng.randint(2, 5)))


def accented(text: str, rng: random.Random) -> str:
    """`text` with one or two letters exchanged for any of Latin-1 and Latin Extended-A ("Vorner" -> "Vořner")."""
    letters = [place for place, letter in enumerate(text) if letter.isalpha()]
    for place in rng.sample(letters, min(len(letters), rng.choice((1, 1, 2)))):
        while not (letter := chr(rng.randint(0xC0, 0x17F))).isalpha():
            pass
        text = text[:place] + letter + text[place + 1 :]
    return text


WRITTEN = ("city.value", "hometown.value", "job.employer", "food.value", "music.value", "book.value", "pet.name",
           "partner.name", "sibling.name", "project.name")  # fmt: skip


def decorated(person: Person, rng: random.Random) -> Person:
    """`person` with letters of other alphabets in one to four facts."""
    keys = [key for key in WRITTEN if key in person.facts]
    for key in rng.sample(keys, min(len(keys), rng.randint(1, 4))):
        value = person.facts[key]
        person.facts[key] = foreign(rng) if rng.random() < 0.25 else accented(value, rng)
    return person


OPEN = {"food.value": "foods", "skill.value": "skills", "hobby.value": "hobbies", "goal.value": "goals",
        "project.description": "project_kinds", "job.title": "job_titles"}  # fmt: skip


_LINKS = ("with", "with", "for", "of", "in", "from", "without", "about")


def spliced(one: str, two: str, rng: random.Random) -> str:
    """The first words of one value and the last of another, now and then with an invented word between them, or both
    whole with a link: "a budget tracker for seed library"; most values of a pool are shorter than what people write."""
    head, tail = one.split(" "), two.split(" ")
    if rng.random() < 0.4:
        return " ".join([*head, rng.choice(_LINKS), *(tail[1:] if tail[0] in ("a", "an", "to") else tail)])
    middle = [invented(rng).lower()] if rng.random() < 0.4 or len(head) + len(tail) < 3 else []
    return " ".join(head[: (len(head) + 1) // 2] + middle + tail[len(tail) // 2 :])


def unheard(person: Person, rng: random.Random) -> Person:
    """`person` with one to four values of several words that stand in no pool: a reader has to copy them to the end."""
    for key in rng.sample(sorted(OPEN), rng.randint(1, 4)):
        if key in person.facts:
            values = [spliced(*rng.sample(pools()[OPEN[key]], 2), rng) for _ in range(rng.choice((1, 1, 2)))]
            several = key in ("food.value", "skill.value", "hobby.value")
            person.facts[key] = spoken(values if several else values[:1])
    return person


def _several(rng: random.Random, pool: list[str], most: int) -> str:
    return spoken(rng.sample(pool, rng.choice([1] * 3 + list(range(1, most + 1)))))


def _birthday(rng: random.Random) -> str:
    month, day = rng.choice(_MONTHS), rng.randint(1, 28)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
    return rng.choice(
        (
            f"{month} {day}",
            f"{month} {day}",
            f"{month} {day}",
            f"{day} {month}",
            f"{month} {day}{suffix}",
            f"the {day}{suffix} of {month}",
        )
    )


def _project(rng: random.Random, p: dict) -> str:
    if rng.random() < 0.5:
        name = rng.choice(p["project_words"]["prefixes"]) + rng.choice(p["project_words"]["suffixes"])
    else:
        name = invented(rng, rng.choice((1, 2, 2)))
    return rng.choice((name.lower(), name, name[:1].upper() + name[1:]))


def invent(rng: random.Random, keep: float = 1.0) -> Person:
    """A person with every attribute of the bank, each kept with probability `keep`."""
    p = pools()
    pronoun = rng.choice(("he", "she"))

    def word(pool: list[str], share: float = 0.4, syllables: int | None = None) -> str:
        return invented(rng, syllables or rng.choice((2, 2, 3))) if rng.random() < share else rng.choice(pool)

    def called(pool: list[str]) -> str:
        draw = rng.random()
        return blended(rng, pool) if draw < 0.25 else invented(rng) if draw < 0.5 else rng.choice(pool)

    def first_name() -> str:
        return called(p["first_names"][rng.choice(("he", "she"))])

    def name() -> str:
        return f"{first_name()} {called(p['last_names'])}"

    first = called(p["first_names"][pronoun])
    full = f"{first} {called(p['last_names'])}"
    site = word(p["site_words"], 0.5).lower()
    species = rng.choice(p["species"][:2] * 6 + p["species"])
    breeds = p["breeds"].get(species, p["breeds"]["other"])
    company = f"{word(p['company_words'], 0.6)} {rng.choice(p['company_kinds'])}"
    school = (
        rng.choice(p["schools"])
        if rng.random() < 0.5
        else rng.choice(
            ("{} University", "University of {}", "{} College", "{} Institute", "{} School", "{} Academy")
        ).format(word(p["cities"], 0.6))
    )
    book = (
        rng.choice(p["books"])
        if rng.random() < 0.4
        else (" ".join(("The", *(rng.choice(p["book_words"][key]).capitalize() for key in ("adjectives", "nouns")))))
    )
    siblings = [first_name() for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    address = rng.choice((first, site, full.replace(" ", "."), first[0] + full.split(" ")[-1]))
    address = re.sub(r"[^a-z.]", "", unicodedata.normalize("NFKD", address.lower()))
    facts = {
        "name.value": full,
        "age.value": str(rng.randint(16, 96)),
        "birthday.value": _birthday(rng),
        "city.value": word(p["cities"]),
        "hometown.value": word(p["cities"]),
        "job.title": rng.choice(("", "", "", "", "senior ", "junior ", "retired ", "assistant "))
        + rng.choice(p["job_titles"]),
        "job.employer": company if rng.random() < 0.9 else word(p["company_words"], 0.5),
        "job.years": str(rng.randint(1, 40)),
        "education.degree": f"{rng.choice(p['degree_kinds'])} in {rng.choice(p['fields'])}",
        "education.school": school,
        "education.year": str(rng.randint(1965, 2026)),
        "language.value": _several(rng, p["languages"], 4),
        "skill.value": _several(rng, p["skills"], 4),
        "hobby.value": _several(rng, p["hobbies"], 3),
        "food.value": _several(rng, p["foods"], 2) if rng.random() < 0.9 else invented(rng).lower(),
        "colour.value": rng.choice(p["colours"]),
        "music.value": word(p["music"], 0.25),
        "book.value": book,
        "pet.name": word(p["pet_names"], 0.5),
        "pet.species": species,
        "pet.breed": rng.choice(breeds) if rng.random() < 0.8 else invented(rng),
        "pet.age": str(rng.randint(1, 20)),
        "partner.name": name() if rng.random() < 0.5 else name().split(" ")[0],
        "sibling.name": spoken(siblings),
        "project.name": _project(rng, p),
        "project.description": rng.choice(p["project_kinds"]),
        "goal.value": rng.choice(p["goals"]),
        "email.value": f"{address}@{rng.choice(p['mail_domains'])}",
        "website.value": rng.choice(("", "www.", "https://"))
        + f"{site}.{rng.choice(('com', 'org', 'net', 'dev', 'io', 'example'))}",
    }
    return Person(first, full, pronoun, {k: v for k, v in facts.items() if k == "name.value" or rng.random() < keep})
