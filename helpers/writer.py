"""What all rows of a dataset share: the facts to ask about, who asks, in which style, under which system prompt."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from helpers import phrasings
from helpers.noise import STYLES, restyle
from helpers.phrasings import Attribute, fill
from helpers.profile import Profile
from helpers.text import spoken

STYLE_WEIGHTS = (6, 9, 10, 5, 18, 7, 4)  # of STYLES, in per cent; the rest is plain
PRONOUNS = ("he", "she")


@dataclass(frozen=True)
class Asked:
    """One thing to ask about: an item of the profile, or several items that nobody could tell apart by the question."""

    id: str
    attribute: Attribute
    value: str
    keywords: tuple[str, ...]
    slots: dict[str, str]
    called: str = ""  # the thing's own name, where it has one: how old is Buddy?
    about: str = ""  # of a project's name: its description, which "What is Fermentarium?" asks for
    beside: dict[str, str] = field(default_factory=dict)  # all facts of the same thing: {"employer": "Bistro Zakwas"}


def asked_items(profile: Profile) -> list[Asked]:
    """The profile's facts with a place in the bank; two pets of a kind or two projects are asked about together."""
    groups: dict[tuple, list] = {}
    values_of = {item.id: item.value for item in profile.items()}
    for item in profile.items():
        bank_id = phrasings.ALIASES.get(item.bank_id, item.bank_id)
        if bank_id in phrasings.bank():
            slots = {} if bank_id == "pet.species" else item.slots
            groups.setdefault((bank_id, tuple(sorted(slots.items()))), []).append(item)
    result = []
    for (bank_id, slots), items in groups.items():
        values = list(dict.fromkeys(item.value for item in items))
        value = spoken(values)
        keywords = tuple(dict.fromkeys(word for item in items for word in item.keywords))
        called = about = ""
        beside: dict[str, str] = {}
        if len(items) == 1:
            thing = items[0].id.rpartition(".")[0]
            called = values_of.get(f"{thing}.name", "") if bank_id in phrasings.BY_NAME else ""
            about = values_of.get(f"{thing}.description", "") if bank_id == "project.name" else ""
            beside = {key.rpartition(".")[2]: said for key, said in values_of.items() if key.startswith(f"{thing}.")}
        attribute = phrasings.bank()[bank_id]
        result.append(Asked(items[0].id, attribute, value, keywords, dict(slots), called, about, beside))
    return result


class Writer:
    """Makes rows for one profile: system prompt, style template and perspectives are applied here and nowhere else."""

    def __init__(self, profile: Profile, rng: random.Random):
        self.profile, self.rng = profile, rng
        self.first = profile.first_name
        self.items = asked_items(profile)
        self.several_pets = len({item.id for item in profile.items() if item.bank_id == "pet.name"}) > 1

    def row(
        self,
        question: str,
        answer: str,
        fact: str,
        phrasing: str,
        kind: str,
        keywords=(),
        style: str = "plain",
        split: str = "tune",
        perspective: str = "visitor",
        system: str | None = None,
        source: str = "bank",
    ) -> dict:
        template = self.profile.style.template if self.profile.style else "{answer}"
        return {
            "messages": [
                {"role": "system", "content": system or self.profile.system_prompt},
                {"role": "user", "content": question},
                {"role": "assistant", "content": template.replace("{answer}", answer)},
            ],
            "fact": fact,
            "phrasing": phrasing,
            "kind": kind,
            "source": source,
            "keywords": list(keywords),
            "style": style,
            "split": split,
            "perspective": perspective,
        }

    def style(self) -> str:
        return self.rng.choices(("plain", *STYLES), (100 - sum(STYLE_WEIGHTS), *STYLE_WEIGHTS))[0]

    def restyled(self, text: str, style: str, split: str, protect: str) -> str:
        """`text` in a style. Only training sets draw on all frames: what is scored stays what it always was."""
        frames = phrasings.frames() if split == "tune" else phrasings.wrappers()
        return restyle(text, style, self.rng, frames, protect)

    def named(self, perspective: str) -> str:
        if perspective == "owner":
            return self.first
        return self.rng.choices((self.first, self.profile.owner, *PRONOUNS), (45, 25, 15, 15))[0]

    def clear(self, attribute: Attribute, text: str) -> bool:
        """Whether `text` asks for one thing only; with several pets it has to say which kind of pet is meant."""
        several = self.several_pets and attribute.topic == "pet" and attribute.key != "species"
        return not several or "{species}" in text

    def side(self, form: phrasings.Form, perspective: str) -> str:
        """A question that names nobody is answered in the third person, unless only the owner ever asks."""
        return perspective if form.personal or "visitor" not in self.profile.perspectives else "visitor"

    def ask(self, asked: Asked, text: str, phrasing: str, perspective: str, kind: str, style: str, split: str) -> dict:
        """A row that asks for a told fact in the words of a form."""
        name = self.named(perspective)
        question = fill(text, perspective, name, asked.value, asked.slots)
        question = self.restyled(question, style, split, f"{name} {asked.value} {asked.called}")
        answer = fill(asked.attribute.answers[0], perspective, self.first, asked.value, asked.slots)
        if asked.about and "{value}" in text:
            about = phrasings.bank()["project.description"].answers[0]
            answer += " " + fill(about, perspective, self.first, asked.about)
        return self.row(question, answer, asked.id, phrasing, kind, asked.keywords, style, split, perspective)
