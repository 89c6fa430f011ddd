"""The phrasing bank: many ways to ask for a fact, in plain YAML under `data/phrasings/`.

A form is written once for both perspectives: `[owner wording|visitor wording]`, with `{name}` for the person and
`{value}` for the fact: "What is [my|{name}'s] dog called?".
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from helpers.errors import UserError
from helpers.models import ROOT

BANK = ROOT / "data" / "phrasings"
ALIASES = {"employer.value": "job.employer"}  # attributes that are asked for in the words of another
# Words after which a pronoun stands as an object: "a card for {name}" -> "a card for him".
_OBJECT = re.compile(
    r"\b(?:(at|behind|beside|by|for|from|near|of|on|to|towards|with) \{name\}(?!'s)"
    r"|(about|after|around|ask|asked|call|calls|called|describe|email|find|greet|have|help|invite"
    r"|know|let|like|made|make|makes|meet|met|reach|see|sees|send|show|surprise|tell|than|thank|visit"
    r"|wish|contact|write|keeps|gives|give|brings|bring|got|pay|pays|employ|employs|raised|hire|hired|taught"
    r"|owns|gets|get|buy|treat|offer|offered|cook|serve|mail|message|introduce|address) \{name\}(?!'s)"
    # "the name you call {name}" but "as far as I know {name} is": the second begins a clause
    r"(?! (?:is|was|has|does|did|had|lives|works|will|would|can|could|should|might|speaks?|likes?|loves?|come|grew|go"
    r"|went"
    r"|use|uses|have|prefer|enjoy|do|get|got|study|play|plays|eat|eats|keep|keeps|own|owns|read|reads)\b))"
)
_PRONOUNS = {"he": ("his", "him"), "she": ("her", "her")}


# Attributes of things that have a name of their own: how old is "my dog", or Buddy?
BY_NAME = {
    "pet.species": "pet.name",
    "pet.breed": "pet.name",
    "pet.age": "pet.name",
    "project.description": "project.name",
}
_THING = {
    "pet": re.compile(r"\[my\|\{name\}'s\] (?:\{species\}|pet\b)"),
    "project": re.compile(r"\[my\|\{name\}'s\] (?:(?:side|current|latest|own) )?project\b"),
}


@dataclass(frozen=True)
class Form:
    """One question form. `split` says who may see it: base (pre-training), tune (both), heldout (nobody)."""

    id: str
    text: str
    split: str
    reversed: bool = False

    @property
    def personal(self) -> bool:
        """Whether the form names its person; "bday?" does not and is always answered in the third person."""
        return "[" in self.text or "{name}" in self.text


@dataclass(frozen=True)
class Attribute:
    """Everything the bank knows about one attribute, such as `pet.name`."""

    topic: str
    key: str
    forms: tuple[Form, ...]
    nouns: tuple[str, ...]
    answers: tuple[str, ...]
    unknown: tuple[str, ...]
    lexicon: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.topic}.{self.key}"

    @property
    def things(self) -> list[str]:
        """The nouns that fit any frame; "how old I am" does not: "Do you have how old I am?"."""
        return [noun for noun in self.nouns if not is_clause(noun)]

    def questions(self, split: str) -> list[Form]:
        return [form for form in self.forms if form.split == split and not form.reversed]

    def reversed(self, split: str) -> list[Form]:
        return [form for form in self.forms if form.split == split and form.reversed]


def is_clause(noun: str) -> bool:
    """Whether a noun phrase is a clause ("how old I am"), which only the frames for clauses fit."""
    return bool(re.match(r"\[?(how|what|when|where|which|who|whose|whom)\b", noun))


def fill(text: str, perspective: str, name: str, value: str = "", slots: dict[str, str] | None = None) -> str:
    """The sentence of a form: `perspective` is owner or visitor, `name` a name or "he"/"she"."""
    side = 0 if perspective == "owner" else 1
    text = re.sub(r"\[([^\[\]|]*)\|([^\[\]|]*)\]", lambda m: m.group(side + 1), text)
    if name in _PRONOUNS:
        possessive, object_ = _PRONOUNS[name]
        text = re.sub(r"\bof \{name\}'s(?=[^\w\s]|$)", "of his" if name == "he" else "of hers", text)
        text = _OBJECT.sub(lambda m: f"{m.group(1) or m.group(2)} {object_}", text).replace("{name}'s", possessive)
    text = text.replace("{name}", name)
    for slot, word in (slots or {}).items():
        text = text.replace("{" + slot + "}", word)
    text = text.replace("{value}", value)
    return text[:1].upper() + text[1:] if not text.startswith(value) or not value else text


def by_name(text: str, attribute: str, called: str) -> str:
    """`text`, a form of an attribute in BY_NAME, with the thing's own name instead of "my dog" ("How old is Buddy?");
    unchanged where it does not say so."""
    thing = _THING[attribute.partition(".")[0]]
    return re.sub(thing, lambda match: called, text)


@functools.cache
def normal(text: str) -> str:
    """A form without case and punctuation, in the owner's wording: what near-duplicates are compared by."""
    return " ".join(re.findall(r"[\w{}']+", fill(text, "owner", "{name}", "{value}").lower()))


def load_yaml(path: Path) -> dict:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", path, "Restore the file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise UserError(f"not valid YAML ({getattr(error, 'problem', error)})", where, "Quote the text.") from error
    if not isinstance(data, dict):
        raise UserError("not a mapping", path, "See the other files of the phrasing bank for the layout.")
    return data


def _check_topic(data: dict, path: Path) -> None:
    """Raise UserError for the first thing in a topic's file that the program could not use."""
    mend = "See the other files of the phrasing bank for the layout."
    if not isinstance(data.get("topic"), str) or not isinstance(data.get("attributes"), dict):
        raise UserError("needs `topic: word` and `attributes:`", path, mend)
    for key, entry in data["attributes"].items():
        if not isinstance(entry, dict):
            raise UserError(f"the attribute {key!r} is not a mapping", path, mend)
        for field in ("questions", "answers", "unknown", "nouns", "reversed"):
            texts = entry.get(field, [])
            if not isinstance(texts, list) or (not texts and field in ("questions", "answers", "unknown")):
                raise UserError(f"{key}.{field} is not a list of sentences", path, mend)
            for text in texts:
                if not isinstance(text, str) or not text.strip():
                    raise UserError(f"{key}.{field} holds {text!r:.60}, which is no text", path, "Put it in quotes.")
                if re.search(r"[{}\[\]|]", fill(text, "visitor", "x", "x", {"species": "x"})):
                    raise UserError(
                        f"a bracket or a slot is wrong in {text!r}",
                        path,
                        "Write [owner wording|visitor wording], {name}, {value}; {species} for pets.",
                    )
                if ("{value}" in text) != (field in ("answers", "reversed")):
                    wrong = "lacks" if field in ("answers", "reversed") else "must not hold"
                    raise UserError(f"{text!r} in {key}.{field} {wrong} {{value}}", path, mend)


def _assign_splits(prefix: str, texts: list[str], seen: list[str]) -> list[str]:
    """A fixed split for each form, by a hash of its words: 15 % heldout, 27 % base, 58 % tune.

    A form nearly equal to an earlier one joins that one's split, and one nearly equal to a `seen` sentence joins the
    base, so that no held-out form has a twin that was trained on.
    """
    import numpy as np
    from rapidfuzz import fuzz, process

    plain = [normal(text) for text in [*seen, *texts]]
    # All pairs at once: a third of the time that one search a form takes, and the bank is loaded by every command.
    likeness = process.cdist(plain[len(seen) :], plain, scorer=fuzz.ratio, score_cutoff=88, dtype=np.float64)
    splits = ["base"] * len(seen)
    for number, row in enumerate(likeness, len(seen)):
        twin = int(row[:number].argmax()) if number else 0
        if number and row[twin]:
            splits.append(splits[twin])
        else:
            bucket = int(hashlib.sha256(f"{prefix}|{plain[number]}".encode()).hexdigest(), 16) % 100
            splits.append("heldout" if bucket < 15 else "base" if bucket < 42 else "tune")
    return splits[len(seen) :]


@functools.cache
def wrappers() -> dict[str, list[str]]:
    """Frames around questions: `noun` ("Tell me {noun}."), `clause`, `before`, `after`, `both`."""
    return load_yaml(BANK / "_wrappers.yaml")


@functools.cache
def frames() -> dict[str, list[str]]:
    """The wrappers and the many more of `_frames.yaml`, in whose words nothing is ever asked: training reads both, so
    that a word it knows little of does not look like a thing it was never told."""
    return {kind: wrappers()[kind] + more for kind, more in extra("frames").items()}


def in_a_frame(noun: str, rng: random.Random) -> str:
    """The question that a noun phrase makes in one of the frames that fit it."""
    return rng.choice(frames()["clause" if is_clause(noun) else "noun"]).replace("{noun}", noun)


def framed(noun: str) -> list[str]:
    """The questions that a noun phrase makes in all frames that fit it."""
    return [frame.replace("{noun}", noun) for frame in wrappers()["clause" if is_clause(noun) else "noun"]]


@functools.cache
def bank() -> dict[str, Attribute]:
    """All attributes by id (`pet.name`), in the order of the files; no question of `_lexicon.yaml` is held out."""
    attributes: dict[str, Attribute] = {}
    further = extra("lexicon")["questions"]
    for path in sorted(BANK.glob("[a-z]*.yaml")):
        data = load_yaml(path)
        _check_topic(data, path)
        for key, entry in data["attributes"].items():
            prefix = f"{data['topic']}.{key}"
            nouns = entry.get("nouns", [])
            seen = [frame.replace("{noun}", noun) for noun in nouns for frame in wrappers()["noun"]]
            seen += [text for noun in nouns if is_clause(noun) for text in framed(noun)]
            forms = []
            for field, flag in (("questions", False), ("reversed", True)):
                texts = list(dict.fromkeys(entry.get(field, [])))
                splits = zip(texts, _assign_splits(prefix, texts, [] if flag else seen), strict=True)
                tune = [] if flag else [(text, "tune") for text in further.get(prefix, ())]
                for text, split in (*splits, *tune):
                    number = hashlib.sha256(text.encode()).hexdigest()[:6]
                    forms.append(Form(f"{prefix}/{number}", text, split, flag))
            attributes[prefix] = Attribute(
                data["topic"], key, tuple(forms), tuple(nouns), tuple(entry["answers"]), tuple(entry["unknown"])
            )
    return _demoted(attributes)


def _demoted(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Reversed forms are alike across attributes ("Who is {value}?" is a pet or a partner): one that is held out here
    and seen there is not held out, so it joins the base."""
    from rapidfuzz import fuzz, process

    seen = [normal(f.text) for a in attributes.values() for f in a.forms if f.reversed and f.split != "heldout"]

    def judged(form: Form) -> Form:
        twin = (
            form.reversed
            and form.split == "heldout"
            and process.extractOne(normal(form.text), seen, scorer=fuzz.ratio, score_cutoff=88)
        )
        return replace(form, split="base") if twin else form

    return {key: replace(a, forms=tuple(judged(form) for form in a.forms)) for key, a in attributes.items()}


@functools.cache
def extra(name: str) -> dict:
    """One of the other files of the bank: unknown, strangers, smalltalk, general."""
    return load_yaml(BANK / f"_{name}.yaml")


def with_lexicon(attribute: Attribute) -> Attribute:
    """`attribute` with the phrases that only a base reads (`_lexicon.yaml`)."""
    return replace(attribute, lexicon=tuple(extra("lexicon")["nouns"].get(attribute.id, ())))


def unknown_split(key: str) -> str:
    """The split of an attribute that is never told (`_unknown.yaml`): about a quarter is held out from everything."""
    bucket = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 4
    return ("heldout", "base", "tune", "tune")[bucket]


def fill_slots(text: str, slots: dict[str, str]) -> str:
    """`text` with {x}, {y} … replaced and a capital at its start."""
    for slot, word in slots.items():
        text = text.replace("{" + slot + "}", word)
    return text[:1].upper() + text[1:]


def relation(text: str, perspective: str, name: str) -> str:
    """Somebody else within a sentence: "my boss" or "Alex's boss" ([my|{name}'s] boss), "the mayor", "Beyoncé"."""
    filled = fill(text, perspective, name)
    return filled if text[:1].isupper() or filled.startswith(name) else filled[:1].lower() + filled[1:]


@functools.cache
def _general() -> list[dict]:
    data = extra("general")
    found: list[tuple[str, dict, list[str], list[str]]] = []
    for family, entry in data["families"].items():
        found += [(f"{family}/{x}", {"x": x, "y": y}, entry, [y]) for x, y in entry["pairs"]]
    for sign, entry in data["sums"].items():
        for a in range(10):
            for b in range(10 if sign == "plus" else a + 1):
                c = str(a + b if sign == "plus" else a - b)
                found.append((f"{sign}/{a},{b}", {"a": str(a), "b": str(b), "c": c}, entry, [c]))
    items = [
        {
            "id": name,
            "keywords": keywords,
            "questions": [fill_slots(text, slots) for text in entry["templates"]],
            "answers": [fill_slots(text, slots) for text in entry["answers"]],
        }
        for name, slots, entry, keywords in found
    ]
    return items + [
        {
            "id": f"facts/{entry['questions'][0]}",
            "keywords": [entry["keyword"]],
            "questions": entry["questions"],
            "answers": [entry["answer"]],
        }
        for entry in data["facts"]
    ]


def general_items(split: str | None = None) -> list[dict]:
    """General-knowledge items {id, questions, answers, keywords}; what tuning forgets is measured on them.

    A third (`tune`) may stand in training sets as a reminder; only the others (`base`) are scored.
    """
    return [
        item
        for item in _general()
        if split is None or (split == "tune") == (int(hashlib.sha256(item["id"].encode()).hexdigest(), 16) % 3 == 0)
    ]
