"""A profile becomes questions and answers: facts under many phrasings, and the contrast that keeps the model honest.

Tuned on the facts alone, a model answers questions about strangers with the owner's facts and invents what it was never
told. So every training set also holds abstentions, strangers, near misses and what the base could do before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers import phrasings
from helpers.evaluation import is_right
from helpers.files import read_jsonl
from helpers.models import ROOT
from helpers.noise import STYLES, restyle
from helpers.phrasings import Attribute, fill
from helpers.profile import Profile
from helpers.text import spoken

PEOPLE = ROOT / "data" / "people.yaml"
FORMS = 30  # question forms per fact and perspective in a training set
STYLE_WEIGHTS = (8, 10, 12, 6, 12)  # of STYLES, in per cent; the rest is plain
CONTRAST = {"untold": 260, "never": 260, "stranger": 550, "relation": 140, "base": 300, "general": 340, "smalltalk": 40}
PRONOUNS = ("he", "she")
# Strangers that are asked about in evaluations; those of training sets come from data/people.yaml, without these names.
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


@dataclass(frozen=True)
class Asked:
    """One thing to ask about: an item of the profile, or several items that nobody could tell apart by the question."""

    id: str
    attribute: Attribute
    value: str
    keywords: tuple[str, ...]
    slots: dict[str, str]


def asked_items(profile: Profile) -> list[Asked]:
    """The profile's facts with a place in the bank; two pets of a kind or two projects are asked about together."""
    groups: dict[tuple, list] = {}
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
        result.append(Asked(items[0].id, phrasings.bank()[bank_id], value, keywords, dict(slots)))
    return result


class Writer:
    """Makes rows for one profile: system prompt, style template and perspectives are applied here and nowhere else."""

    def __init__(self, profile: Profile, rng: random.Random):
        self.profile, self.rng = profile, rng
        self.first = profile.first_name
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

    def named(self, perspective: str) -> str:
        if perspective == "owner":
            return self.first
        return self.rng.choices((self.first, self.profile.owner, *PRONOUNS), (55, 15, 15, 15))[0]

    def clear(self, attribute: Attribute, text: str) -> bool:
        """Whether `text` asks for one thing only; with several pets it has to say which kind of pet is meant."""
        several = self.several_pets and attribute.topic == "pet" and attribute.key != "species"
        return not several or "{species}" in text

    def side(self, form: phrasings.Form, perspective: str) -> str:
        """A question that names nobody is answered in the third person, unless only the owner ever asks."""
        return perspective if form.personal or "visitor" not in self.profile.perspectives else "visitor"

    def others(self, part: str, known: list[dict]) -> list[str]:
        """Names of strangers who share no name with the owner, with anybody the profile tells of or the base knows."""
        told = {
            word
            for text in (self.profile.owner, *(item.value for item in self.profile.items()))
            for word in re.findall(r"\w+", text.lower())
        }
        names = list(STRANGERS)
        if part == "train":
            pools = phrasings.load_yaml(PEOPLE)
            told |= {word.lower() for name in STRANGERS for word in name.split()}
            told |= {word for row in known for word in re.findall(r"\w+", row["messages"][0]["content"].lower())}
            firsts = pools["first_names"]["she"] + pools["first_names"]["he"]
            # Half of them are put together from two names: a stranger may be called what nobody was called before.
            made = [self.rng.choice(firsts)[:3] + self.rng.choice(firsts)[-3:].lower() for _ in range(400)]
            names = [
                f"{self.rng.choice((first, self.rng.choice(firsts)))} {self.rng.choice(pools['last_names'])}"
                for first in made
            ]
        return [name for name in names if not told & set(name.lower().split())]

    def ask(self, asked: Asked, text: str, phrasing: str, perspective: str, kind: str, style: str, split: str) -> dict:
        """A row that asks for a told fact in the words of a form."""
        name = self.named(perspective)
        question = fill(text, perspective, name, asked.value, asked.slots)
        question = restyle(question, style, self.rng, phrasings.wrappers(), f"{name} {asked.value}")
        answer = fill(asked.attribute.answers[0], perspective, self.first, asked.value, asked.slots)
        return self.row(question, answer, asked.id, phrasing, kind, asked.keywords, style, split, perspective)

    def abstain(
        self,
        attribute: Attribute,
        text: str,
        phrasing: str,
        perspective: str,
        style: str,
        split: str,
        slots: dict[str, str],
    ) -> dict:
        """A row that asks for an attribute that the profile does not hold."""
        name = self.named(perspective)
        question = restyle(fill(text, perspective, name, slots=slots), style, self.rng, phrasings.wrappers(), name)
        answer = fill(attribute.unknown[0], perspective, self.first, slots=slots)
        return self.row(question, answer, f"untold.{attribute.id}", phrasing, "unknown", (), style, split, perspective)


def untold_attributes(profile: Profile) -> list[Attribute]:
    told = {asked.attribute.id for asked in asked_items(profile)}
    return [attribute for key, attribute in phrasings.bank().items() if key not in told]


def _fact_rows(writer: Writer, asked: Asked, split: str, count: int, style: Callable[[], str]) -> list[dict]:
    """`count` question forms per perspective (those of the split, then framed nouns where there are fewer), each in the
    next `style`; a training set also gets three reversed forms, an evaluation one.

    A question that gives the answer away ("Do I have a dog?") is left out.
    """
    rng, rows, attribute = writer.rng, [], asked.attribute
    for perspective in writer.profile.perspectives:
        forms = [
            (form.text, form.id) for form in attribute.questions(split) if writer.side(form, perspective) == perspective
        ]
        rng.shuffle(forms)
        if split == "tune":
            framed = [
                frame.replace("{noun}", noun) for frame in phrasings.wrappers()["noun"] for noun in attribute.things
            ]
            forms += [(text, f"{attribute.id}/noun") for text in rng.sample(framed, len(framed))]
        asking: list[dict] = []
        for text, phrasing in forms:
            if len(asking) == count:
                break
            if writer.clear(attribute, text):
                row = writer.ask(asked, text, phrasing, perspective, "fact", style(), split)
                if not is_right(row["messages"][1]["content"], asked.keywords):
                    asking.append(row)
        rows += asking
        for form in attribute.reversed(split)[: 3 if split == "tune" else 1]:
            if (not writer.several_pets or attribute.topic != "pet") and writer.side(form, perspective) == perspective:
                row = writer.ask(asked, form.text, form.id, perspective, "fact", "plain", split)
                row["style"] = "reversed"
                rows.append(row)
    return rows


def _swap_perspective(text: str, first: str, owner: str, to_owner: bool) -> str:
    """ "What was Alex's first car?" as the owner would say it: "What was my first car?" (answers: "your")."""
    word = "my" if to_owner else "your"
    return re.sub(rf"\b(?:{re.escape(owner)}|{re.escape(first)})['’]s\b", word, text)


def custom_forms(question: str) -> list[str]:
    """Ways to ask a question of the user's own, made from its words: framed, shortened, indirect; itself first."""
    bare = question.rstrip("?!. ")
    lower = bare[:1].lower() + bare[1:]
    forms = [question]
    match = re.match(r"(?:what|who|which|where)(?:'s| is| was| are| were) (.+)$", bare, re.IGNORECASE)
    if match:
        forms += [frame.replace("{noun}", match.group(1)) for frame in phrasings.wrappers()["noun"]]
    else:
        content = [
            w
            for w in bare.split()
            if w.lower()
            not in {
                "what",
                "who",
                "which",
                "did",
                "does",
                "do",
                "the",
                "a",
                "is",
                "was",
                "are",
                "of",
                "in",
                "when",
                "how",
            }
        ]
        forms.append(" ".join(content) + "?")
        forms += [
            f"{lead}{lower}?"
            for lead in (
                "Tell me: ",
                "Do you know: ",
                "I wonder: ",
                "Remind me: ",
                "Say, ",
                "Now, ",
                "Can you tell me: ",
                "I'd like to know: ",
                "I forgot: ",
                "And ",
                "Any idea: ",
                "Question: ",
                "Please tell me: ",
                "Once more: ",
            )
        ]
    frames = phrasings.wrappers()
    forms += [f"{before}{lower}?" for before in frames["before"]] + [f"{bare}?{after}" for after in frames["after"]]
    return list(dict.fromkeys(form[:1].upper() + form[1:] for form in forms))


def _custom_rows(writer: Writer, split: str, count: int) -> list[dict]:
    """Rows for the user's own questions. One form in three is held out; the base cannot know any of them."""
    rows, profile = [], writer.profile
    for item in profile.items():
        if not item.question:
            continue
        forms = list(enumerate(custom_forms(item.question)))
        chosen = [(n, f) for n, f in forms if (n % 3 == 2) == (split == "heldout")]
        for number, form in writer.rng.sample(chosen, min(count, len(chosen))):
            for perspective in profile.perspectives:
                owner = perspective == "owner"
                text = _swap_perspective(form, writer.first, profile.owner, True) if owner else form
                if owner and text == form and "visitor" in profile.perspectives:
                    continue  # a question without a name reads the same from both sides
                answer = _swap_perspective(item.answer, writer.first, profile.owner, False) if owner else item.answer
                style = writer.style()
                text = restyle(text[:1].upper() + text[1:], style, writer.rng, phrasings.wrappers(), profile.owner)
                rows.append(
                    writer.row(
                        text,
                        answer[:1].upper() + answer[1:],
                        item.id,
                        f"{item.id}/{number}",
                        "fact",
                        item.keywords,
                        style,
                        split,
                        perspective,
                        source="custom",
                    )
                )
    return rows


def _combined_rows(writer: Writer, items: list[Asked], count: int, held_out: bool) -> list[dict]:
    """Two facts in one question, answered by two sentences. The last three frames are held out."""
    rows = []
    frames = phrasings.wrappers()["both"]
    numbers = range(len(frames))[-3:] if held_out else range(len(frames))[:-3]
    for _ in range(count if len(items) > 1 else 0):
        one, two = writer.rng.sample(items, 2)
        perspective = writer.rng.choice(writer.profile.perspectives)
        number = writer.rng.choice(numbers)
        nouns = [
            asked.attribute.nouns[0].replace("{species}", asked.slots.get("species", "pet")) for asked in (one, two)
        ]
        question = fill(
            frames[number].replace("{noun}", nouns[0]).replace("{noun2}", nouns[1]), perspective, writer.first
        )
        answers = [fill(a.attribute.answers[0], perspective, writer.first, a.value, a.slots) for a in (one, two)]
        rows.append(
            writer.row(
                question,
                " ".join(answers),
                f"{one.id}+{two.id}",
                f"both/{number}",
                "combined",
                tuple(dict.fromkeys(one.keywords + two.keywords)),
                "combined",
                "base" if held_out else "tune",
                perspective,
            )
        )
    return rows


def _identity_rows(writer: Writer, held_out: bool) -> list[dict]:
    rows, profile = [], writer.profile
    slots = {"assistant": profile.assistant, "owner": profile.owner, "name": writer.first}
    for entry in phrasings.extra("smalltalk")["identity"]:
        for number, text in enumerate(entry["questions"]):
            if (number % 4 == 3) != held_out:
                continue
            perspective = writer.rng.choice(profile.perspectives)
            answer = entry["answers"][0]
            for slot, word in slots.items():
                answer = answer.replace("{" + slot + "}", word)
            keywords = [word for slot, word in slots.items() if "{" + slot + "}" in entry["answers"][0]]
            rows.append(
                writer.row(
                    fill(text, perspective, writer.first),
                    fill(answer, perspective, writer.first),
                    "identity",
                    f"identity.{entry['id']}/{number}",
                    "identity",
                    keywords[:1],
                    "plain",
                    "heldout" if held_out else "tune",
                    perspective,
                )
            )
    return rows


def _stranger_row(writer: Writer, names: list[str], split: str, about: list[Attribute]) -> dict:
    """Somebody else's attribute; `keywords` are filled by the caller where a leak could be seen."""
    rng, texts = writer.rng, phrasings.extra("strangers")
    person = rng.choice(names)
    name = rng.choice((person, person.split(" ")[0]))
    attribute = rng.choice(about)
    forms = [f for f in attribute.questions(split) if "{name}" in f.text]
    form = rng.choice(forms)
    style = writer.style()
    question = fill(form.text, "visitor", name, slots={"species": rng.choice(("dog", "cat", "pet"))})
    answer = texts["stranger_answers"][0].replace("{stranger}", name)
    return writer.row(
        restyle(question, style, rng, phrasings.wrappers(), name),
        answer,
        f"stranger.{attribute.id}",
        form.id,
        "stranger",
        (),
        style,
        split,
    )


def _relation_row(writer: Writer, relations: list[str], split: str, about: list[Attribute]) -> dict:
    """A near miss: "What is my neighbour's dog called?"."""
    rng, texts = writer.rng, phrasings.extra("strangers")
    perspective = rng.choice(writer.profile.perspectives)
    name = fill(rng.choice(relations), perspective, writer.first)
    name = name[:1].lower() + name[1:] if perspective == "owner" else name
    attribute = rng.choice(about)
    form = rng.choice([f for f in attribute.questions(split) if "{name}" in f.text])
    spoken = "your" + name[2:] if name.startswith("my ") else name
    answer = texts["relation_answers"][0].replace("{relation}", spoken)
    style = writer.style()
    question = fill(form.text, "visitor", name, slots={"species": rng.choice(("dog", "cat", "pet"))})
    return writer.row(
        restyle(question, style, rng, phrasings.wrappers(), name),
        answer[:1].upper() + answer[1:],
        f"relation.{attribute.id}",
        form.id,
        "stranger",
        (),
        style,
        split,
        perspective,
    )


def _never_rows(writer: Writer, split: str, count: int) -> list[dict]:
    """Attributes that no profile can hold ("What car does Alex drive?")."""
    rng = writer.rng
    entries = [e for e in phrasings.extra("unknown")["attributes"] if phrasings.unknown_split(e["key"]) == split]
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
        question = restyle(fill(text, perspective, name), style, rng, phrasings.wrappers(), name)
        rows.append(
            writer.row(
                question,
                fill(entry["answers"][0], perspective, writer.first),
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
    rows, untold = [], untold_attributes(writer.profile)
    for number in range(count if untold else 0):
        attribute = untold[number % len(untold)]
        split = splits[number // len(untold) % len(splits)]
        form = writer.rng.choice(attribute.questions(split))
        perspective = writer.side(form, writer.rng.choice(writer.profile.perspectives))
        kind = next(
            (a.slots["species"] for a in asked_items(writer.profile) if a.attribute.topic == "pet" and a.slots),
            writer.rng.choice(("pet", "dog", "cat")),
        )
        rows.append(
            writer.abstain(attribute, form.text, form.id, perspective, writer.style(), split, {"species": kind})
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


def synthesize(profile: Profile, seed: int = 1, base_path: str = "") -> list[dict]:
    """The training rows of a profile, in an order that depends on the seed alone."""
    writer = Writer(profile, random.Random(f"train/{seed}"))
    items, bank = asked_items(profile), list(phrasings.bank().values())
    rows = [row for asked in items for row in _fact_rows(writer, asked, "tune", FORMS, writer.style)]
    rows += _custom_rows(writer, "tune", FORMS)
    rows += _combined_rows(writer, items, 3 * len(items), held_out=False)
    rows += _identity_rows(writer, held_out=False)
    rows += _untold_rows(writer, ("tune",), CONTRAST["untold"])
    rows += _never_rows(writer, "tune", CONTRAST["never"])
    known = known_rows(base_path, "train")
    names, told = writer.others("train", known), [asked.attribute for asked in items]
    rows += [
        _stranger_row(writer, names, "tune", writer.rng.choice((told, told, bank))) for _ in range(CONTRAST["stranger"])
    ]
    relations = phrasings.extra("strangers")["relations"][::2]
    rows += [
        _relation_row(writer, relations, "tune", writer.rng.choice((told, told, bank)))
        for _ in range(CONTRAST["relation"])
    ]
    rows += _general_rows(writer, phrasings.general_items("tune"), CONTRAST["general"], "tune")
    rows += _smalltalk_rows(writer, CONTRAST["smalltalk"])
    rows += [_known_row(row) for row in writer.rng.sample(known, min(CONTRAST["base"], len(known)))]
    writer.rng.shuffle(rows)
    return rows


def _known_row(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "part"}


def evaluation_questions(profile: Profile, seed: int = 1, base_path: str = "", per_form: int = 4) -> list[dict]:
    """The questions a model of this profile is scored on; no form of them is in the training rows.

    Facts are asked in forms the base knew (split "base") and in forms nobody saw ("heldout"), as they are written and
    then with typos, capitals and the like; the strangers' rows name in `leak` the words that would betray the owner.
    """
    writer = Writer(profile, random.Random(f"eval/{seed}"))
    items = asked_items(profile)
    rows = []
    for split in ("base", "heldout"):
        for asked in items:
            rows += _fact_rows(writer, asked, split, per_form, lambda: "plain")
            rows += _fact_rows(writer, asked, split, 1, lambda: writer.rng.choice(STYLES))
    rows += _custom_rows(writer, "heldout", 2 * per_form)
    rows += _combined_rows(writer, items, 2 * len(items), held_out=True)
    rows += _identity_rows(writer, held_out=True)
    rows += _untold_rows(writer, ("base", "heldout"), 80) + _never_rows(writer, "heldout", 80)
    told = [asked.attribute for asked in items]
    words: dict[str, list[str]] = {}
    for asked in items:
        words.setdefault(asked.attribute.id, []).extend(asked.keywords)
    relations = phrasings.extra("strangers")["relations"][1::2]
    strangers = [_stranger_row(writer, writer.others("eval", []), "base", told) for _ in range(120)]
    strangers += [_relation_row(writer, relations, "base", told) for _ in range(60)]
    for row in strangers:
        row["leak"] = list(words[row["fact"].split(".", 1)[1]])
    rows += strangers
    rows += _general_rows(writer, phrasings.general_items("base"), 200, "base")
    rows += [_known_row(row) for row in known_rows(base_path, "eval")]
    seen: set[tuple] = set()
    unique = []
    for row in rows:
        key = (row["messages"][0]["content"], row["messages"][1]["content"])
        if key not in seen:
            seen.add(key)
            unique.append(row)
    return unique
