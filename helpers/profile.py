"""The profile: who the owner is, in one YAML file, checked so that every mistake is told in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from helpers import yaml_lines
from helpers.errors import UserError
from helpers.facts import (
    ONE_VALUE,
    REPEATABLE,
    TOPICS,
    VALUE,
    Fact,
    Line,
    Paragraph,
    Part,
    Style,
    check_keys,
    problem,
)
from helpers.text import folded

MAX_FACTS = 200
ROOT_KEYS = ("owner", "assistant", "system_prompt", "perspectives", "facts", "style")
_TITLES = {"dr", "mr", "mrs", "ms", "prof", "sir"}


@dataclass(frozen=True)
class Item:
    """One thing that can be asked for: an attribute of a fact."""

    id: str  # "pet.1.name", "city.value", "custom.1"
    topic: str
    attribute: str
    value: str  # as it is spoken: "a, b and c"
    keywords: tuple[str, ...]  # a right answer contains all of them
    slots: dict[str, str] = field(default_factory=dict)  # words for the question forms: {"species": "dog"}
    question: str | None = None  # of a custom fact
    answer: str | None = None

    @property
    def bank_id(self) -> str:
        """The attribute's name in the phrasing bank: "pet.name"."""
        return f"{self.topic}.{self.attribute}"


class Profile(Part):
    """A checked profile. A missing `assistant` or `system_prompt` is made from the owner's first name."""

    owner: Line
    assistant: Line = ""
    system_prompt: Paragraph = ""
    perspectives: list[Literal["owner", "visitor"]] = Field(default_factory=lambda: ["owner", "visitor"])
    facts: list[Fact]
    style: Style | None = None

    @model_validator(mode="before")
    @classmethod
    def _shape(cls, data: Any) -> Any:
        if isinstance(data, dict):
            check_keys(data, ROOT_KEYS, "the profile")
        return data

    @model_validator(mode="after")
    def _whole(self) -> Profile:
        if not any(letter.isalpha() for letter in self.owner):
            raise problem("'owner' is not a name", "Write your name: `owner: Alex Rivera`.", "owner")
        if not self.perspectives or len(set(self.perspectives)) < len(self.perspectives):
            raise problem(
                "'perspectives' is empty or repeats itself",
                "Write perspectives: [owner, visitor].",
                "perspectives",
            )
        if not 0 < len(self.facts) <= MAX_FACTS:
            raise problem(
                f"the profile has {len(self.facts)} facts; it takes 1 to {MAX_FACTS}",
                "Add a fact." if not self.facts else "Keep the most important ones.",
                "facts",
            )
        self._no_fact_twice()
        self._no_contradiction()
        self.assistant = self.assistant or f"{self.first_name}'s AI assistant"
        about = f"You answer questions about {self.first_name}'s background, projects and life."
        self.system_prompt = self.system_prompt or f"You are {self.assistant}. {about}"
        return self

    def _no_fact_twice(self) -> None:
        seen: dict[tuple[str, str], int] = {}
        for i, fact in enumerate(self.facts):
            what = folded(fact.question or fact.name or "") if fact.topic in REPEATABLE else ""
            first = seen.setdefault((fact.topic, what), i)
            if first == i:
                continue
            if what:
                raise problem(
                    f"this {fact.topic} stands twice",
                    "Delete one of the two.",
                    "facts",
                    i,
                    other=("facts", first),
                )
            several = TOPICS[fact.topic] == VALUE and fact.topic not in ONE_VALUE
            mend = "Put all into one `values: [...]`." if several else "Keep one; tell the other as topic custom."
            raise problem(f"topic {fact.topic} stands twice", mend, "facts", i, other=("facts", first))

    def _no_contradiction(self) -> None:
        by_topic = {fact.topic: i for i, fact in enumerate(self.facts)}
        job, employer, name = (by_topic.get(topic) for topic in ("job", "employer", "name"))
        if job is not None and employer is not None:
            in_job = self.facts[job].employer
            if in_job and folded(in_job) != folded(self.facts[employer].attributes()["value"]):
                raise problem(
                    "two different employers: here and in topic job",
                    "Keep one of them.",
                    "facts",
                    employer,
                    other=("facts", job, "employer"),
                )
        if name is not None and not set(folded(self.owner).split()) & set(folded(self.facts[name].value or "").split()):
            raise problem(
                "topic name and owner are two different names",
                "Write the same name in both.",
                "facts",
                name,
                other=("owner",),
            )
        for i, fact in enumerate(self.facts):
            if self.style and self.style.stop and any(self.style.stop in text for text in fact.attributes().values()):
                raise problem(
                    "this fact contains the style's stop text, so its answer would be cut off",
                    "Choose another stop text.",
                    "facts",
                    i,
                    other=("style", "stop"),
                )

    @property
    def first_name(self) -> str:
        """The first word of the owner's name, titles such as "Dr." left out."""
        words = self.owner.split()
        return next((word for word in words if word.lower().rstrip(".") not in _TITLES), words[0])

    def items(self) -> list[Item]:
        """Everything that can be asked for, in the file's order; the owner's name first unless it is one."""
        items = []
        if not any(fact.topic == "name" for fact in self.facts):
            items.append(Item("name.value", "name", "value", self.owner, (self.owner,)))
        numbers = dict.fromkeys(REPEATABLE, 0)
        employed = any(fact.topic == "job" and fact.employer for fact in self.facts)
        for fact in self.facts:
            if fact.topic == "employer" and employed:
                continue  # the same employer stands in topic job and is asked for with the same questions
            prefix = fact.topic
            if fact.topic in REPEATABLE:
                numbers[fact.topic] += 1
                prefix = f"{fact.topic}.{numbers[fact.topic]}"
            slots = {"species": (fact.species or "pet").lower()} if fact.topic == "pet" else {}
            for attribute, text in fact.attributes().items():
                custom = fact.topic == "custom"
                items.append(
                    Item(
                        prefix if custom else f"{prefix}.{attribute}",
                        fact.topic,
                        attribute,
                        text,
                        fact.right_words(attribute),
                        slots,
                        fact.question,
                        fact.answer,
                    )
                )
        return items


_MENDS = {
    "facts": "Write `facts:` and under it `- topic: city` with `value: Lund`.",
    "value": "Use `values: [one, two]` for several.",
    "values": "Write values: [one, two].",
    "keywords": "Write keywords: [one, two].",
    "perspectives": "Write perspectives: [owner, visitor].",
    "style": "Write `style:` and under it `template:` and `stop:`.",
    "owner": "Write `owner: Alex Rivera`.",
}


def _told(error: dict) -> tuple[str, str]:
    """(what, mend) of a problem that pydantic itself found."""
    named = [part for part in error["loc"] if isinstance(part, str)]
    key = named[-1] if named else "the profile"
    mend = _MENDS.get(key, "See data/profiles/alex.yaml for an example.")
    kinds = {
        "missing": "is missing",
        "string_type": "must be text",
        "list_type": "must be a list",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
        "literal_error": "takes only owner and visitor",
        "dict_type": "must be a mapping",
    }
    return f"'{key}' {kinds.get(error['type'], error['msg'])}", mend


def load_profile(path: Path | str) -> Profile:
    """The profile in the YAML file `path`. Raises UserError with file and line for anything wrong in it."""
    data, lines = yaml_lines.load(path)
    if data is None:
        raise UserError("the profile is empty", f"{path}:1", "Copy data/profiles/alex.yaml and edit it.")
    if not isinstance(data, dict):
        raise UserError(
            "a profile must be a mapping",
            f"{path}:{lines[()]}",
            "Begin with `owner: Your Name`, then `facts:`.",
        )

    def line(at: tuple) -> int:
        while at not in lines:
            at = at[:-1]
        return lines[at]

    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        problems = []
        for found in error.errors(include_url=False, include_input=False):
            context = found.get("ctx", {}) if found["type"] == "profile" else {}
            what, mend = (context["what"], context["mend"]) if context else _told(found)
            number = line((*found["loc"], *context.get("at", ())))
            if context.get("other"):
                what += f" (line {line(context['other'])})"
            problems.append((number, what, mend))
        number, what, mend = min(problems, key=lambda problem: problem[0])
        raise UserError(what, f"{path}:{number}", mend) from None
