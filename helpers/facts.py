"""The parts of a profile, facts and reply style, with the rules that each must keep."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from helpers.text import CONTROL, MARKER, closest, contains, folded, spoken

MAX_TEXT = 200  # characters of one value
MAX_LONG_TEXT = 600  # characters of a list when spoken, a custom answer, the system prompt, the reply template
VALUE = ("value", "values")
# The keys of each topic, the obligatory ones first: at least one of REQUIRED must be there.
TOPICS: dict[str, tuple[str, ...]] = {
    "name": VALUE,
    "age": VALUE,
    "birthday": VALUE,
    "city": VALUE,
    "hometown": VALUE,
    "job": ("title", "employer", "years"),
    "employer": VALUE,
    "education": ("degree", "school", "year"),
    "language": VALUE,
    "skill": VALUE,
    "hobby": VALUE,
    "food": VALUE,
    "colour": VALUE,
    "music": VALUE,
    "book": VALUE,
    "pet": ("name", "species", "breed", "age"),
    "partner": ("name",),
    "sibling": ("name",),
    "project": ("name", "description"),
    "goal": VALUE,
    "email": VALUE,
    "website": VALUE,
    "custom": ("question", "answer"),
}
REQUIRED = {
    "job": ("title", "employer"),
    "education": ("degree", "school"),
    "pet": ("name",),
    "partner": ("name",),
    "sibling": ("name",),
    "project": ("name",),
}
REPEATABLE = ("pet", "sibling", "project", "custom")  # people have two of these
ONE_VALUE = ("name", "age", "birthday", "hometown")  # nobody has two of these


def problem(what: str, mend: str, *at: str | int, other: tuple = ()) -> PydanticCustomError:
    """A problem with its mend. `at` leads from the checked part to the key, `other` from the root."""
    return PydanticCustomError("profile", "{what}", {"what": what, "mend": mend, "at": at, "other": other})


def _text(value: Any) -> Any:
    """Numbers from code are told as text; from YAML they already come as they were typed."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _clean(limit: int, lines: bool = False):
    def clean(text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        text = text.strip() if lines else " ".join(text.split())
        if not text:
            raise problem("the text is empty", "Write it, or delete the line.")
        if found := CONTROL.search(text):
            raise problem(f"the text holds a control character (U+{ord(found.group()):04X})", "Delete it.")
        if found := MARKER.search(text):
            raise problem(
                f"the text holds the chat marker {found.group()}, which would break the conversation",
                "Delete it.",
            )
        if len(text) > limit:
            raise problem(
                f"the text has {len(text)} characters; the most is {limit}",
                "Shorten it, or tell it as several facts.",
            )
        return text

    return clean


Line = Annotated[str, BeforeValidator(_text), AfterValidator(_clean(MAX_TEXT))]
LongLine = Annotated[str, BeforeValidator(_text), AfterValidator(_clean(MAX_LONG_TEXT))]
Paragraph = Annotated[str, AfterValidator(_clean(MAX_LONG_TEXT, lines=True))]


def check_keys(data: dict, allowed: tuple[str, ...], place: str) -> None:
    """Raise the problem of the first key of `data` that is not allowed, with the key it was meant to be."""
    for key in data:
        if key in allowed:
            continue
        if place == "the profile" and key in TOPICS:
            raise problem(
                f"'{key}' is a fact and stands outside `facts`",
                f"Write it as `- topic: {key}` under facts.",
                key,
            )
        guess = closest(str(key), allowed)
        mend = f"Did you mean '{guess}'?" if guess else f"Use {', '.join(allowed)}."
        raise problem(f"unknown key '{key}' in {place}", mend, key)


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Fact(Part):
    """One thing to know. Which keys it takes depends on the topic (TOPICS); any may set `keywords`."""

    topic: str
    value: Line | None = None
    values: list[Line] | None = None
    name: Line | None = None
    species: Line | None = None
    breed: Line | None = None
    age: Line | None = None
    title: Line | None = None
    employer: Line | None = None
    years: Line | None = None
    degree: Line | None = None
    school: Line | None = None
    year: Line | None = None
    description: Line | None = None
    question: Line | None = None
    answer: LongLine | None = None
    keywords: list[Line] | None = None

    @model_validator(mode="before")
    @classmethod
    def _shape(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise problem("a fact must be a mapping with a topic", "Write `- topic: city` and under it `value: Lund`.")
        topic = data.get("topic")
        if topic is None:
            guess = next((key for key in data if key in TOPICS), "city")
            raise problem("the fact has no topic", f"Begin it with `- topic: {guess}`.")
        if not isinstance(topic, str):
            raise problem("'topic' must be one word", f"Use one of {', '.join(TOPICS)}.", "topic")
        if topic not in TOPICS:
            guess = closest(topic, TOPICS)
            mend = f"Did you mean '{guess}'?" if guess else "Use `custom` with question and answer, or a known topic."
            raise problem(f"unknown topic '{topic}'", mend, "topic")
        keys = TOPICS[topic]
        check_keys(data, ("topic", *keys, "keywords"), f"topic {topic}")
        if keys == VALUE:
            if "value" in data and "values" in data:
                raise problem(f"topic {topic} has both value and values", "Keep one of them.", "values")
            if not set(VALUE) & set(data):
                raise problem(f"topic {topic} has no value", "Add `value: ...`.")
            if "values" in data and topic in ONE_VALUE:
                raise problem(f"topic {topic} takes one value", "Write `value: ...`.", "values")
        elif topic == "custom":
            for key in keys:
                if key not in data:
                    raise problem(f"a custom fact needs question and answer; '{key}' is missing", f"Add `{key}: ...`.")
        elif not set(REQUIRED[topic]) & set(data):
            raise problem(f"topic {topic} has no {' or '.join(REQUIRED[topic])}", f"Add `{REQUIRED[topic][0]}: ...`.")
        return data

    @model_validator(mode="after")
    def _lists(self) -> Fact:
        for key in ("values", "keywords"):
            entries = getattr(self, key)
            if entries is None:
                continue
            if not entries:
                raise problem(f"'{key}' is an empty list", f"Write {key}: [one, two], or delete the line.", key)
            for i, entry in enumerate(entries):
                if folded(entry) in [folded(other) for other in entries[:i]]:
                    raise problem(f"'{key}' lists the same thing twice", "Delete one of the two.", key, i)
        if self.values and len(spoken(self.values)) > MAX_LONG_TEXT:
            raise problem("the list is too long to be said in one answer", "Keep the most important ones.", "values")
        for i, keyword in enumerate(self.keywords or []):
            if not any(contains(text, keyword) for text in self.attributes().values()):
                where = "answer" if self.topic == "custom" else "fact"
                raise problem(
                    f"the keyword '{keyword}' does not stand in the {where}, so no answer could be right",
                    f"Use words of the {where}.",
                    "keywords",
                    i,
                )
        return self

    def attributes(self) -> dict[str, str]:
        """What is known, as it is spoken: {"name": "Buddy", "breed": "Golden Retriever"}."""
        if self.topic == "custom":
            return {"answer": self.answer or ""}
        if self.values:
            return {"value": spoken(self.values)}
        given = {key: getattr(self, key) for key in TOPICS[self.topic]}
        return {key: text for key, text in given.items() if text is not None}

    def right_words(self, attribute: str) -> tuple[str, ...]:
        """What a right answer about `attribute` contains: its words among `keywords`, or its value(s)."""
        text = self.attributes()[attribute]
        own = tuple(word for word in self.keywords or [] if contains(text, word))
        if own:
            return own
        if attribute == "value" and self.values:
            return tuple(self.values)
        return (text.rstrip(".!? ") or text,) if self.topic == "custom" else (text,)


class Style(Part):
    """A template that every reply follows, with `{answer}` in it, and the text at which a reply ends."""

    template: Paragraph
    stop: Paragraph | None = None

    @model_validator(mode="before")
    @classmethod
    def _shape(cls, data: Any) -> Any:
        if isinstance(data, dict):
            check_keys(data, ("template", "stop"), "style")
        return data

    @model_validator(mode="after")
    def _fits(self) -> Style:
        if self.template.count("{answer}") != 1:
            often = "no" if "{answer}" not in self.template else "more than one"
            raise problem(
                f"the template has {often} {{answer}}",
                "Write {answer} once, where the answer belongs.",
                "template",
            )
        if self.stop is not None and self.stop not in self.template:
            raise problem(
                "the stop text does not stand in the template",
                "Copy it from the end of the template.",
                "stop",
            )
        if self.stop is not None and self.template.index(self.stop) < self.template.index("{answer}") + len("{answer}"):
            raise problem(
                "the stop text stands before the answer, so replies would be cut off",
                "Use text that stands only after {answer}.",
                "stop",
            )
        return self
