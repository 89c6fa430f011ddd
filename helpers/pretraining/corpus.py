"""The corpus of the base model: chats about invented people, generated as they are needed from a seed.

Kinds of chat: *reading* (facts in the system prompt), *recall* (people the model learns by heart), *blank* (an owner of
whom nothing was told), *world* (small talk, identity, general knowledge).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from helpers import phrasings
from helpers.noise import STYLES, blurred, restyle
from helpers.phrasings import Attribute, fill
from helpers.pretraining.people import Person, alike, decorated, invent, invented, unheard

KNOWN_PEOPLE = 100
MIX = {"reading": 0.38, "recall": 0.40, "blank": 0.09, "world": 0.13}
# What is asked in a chat about a person, in per cent: two told facts at once, a told fact, one of the bank that was not
# told, one that no profile holds, something about somebody else, general knowledge.
ASKED = ("both", "told", "untold", "never", "stranger", "world", "thing")
TURNS = {
    "reading": (4, 36, 10, 22, 10, 3, 15),
    "recall": (3, 44, 14, 22, 12, 5, 0),
    "blank": (0, 4, 30, 38, 22, 6, 0),
}
THINGS = 0.6  # share of the prompts that tell up to four things which no attribute of the bank holds
TOLD = (0.3, 0.95)  # share of the attributes that a known person has: what is not told has to be known as well
STYLE_WEIGHTS = (8, 8, 9, 7, 22, 6, 5)  # of STYLES, in per cent; the rest is plain
BLURRED = 0.1  # share of the questions about a person that lose a word or two
HARD = ("lower", "caps", "nopunct", "texting")  # styles in which a stranger's name is hard to tell from the owner's
SEEN = ("base", "tune")  # the splits a base model may see


@functools.cache
def known_people() -> list[Person]:
    """The people whose facts the base model learns by heart; always the same."""
    rng = random.Random("known people")
    people: dict[str, Person] = {}
    while len(people) < KNOWN_PEOPLE:
        person = invent(rng, rng.uniform(*TOLD))
        people.setdefault(person.first, person)  # first names are unique: a prompt may hold nothing else
    return list(people.values())


@functools.cache
def _known_names() -> frozenset[str]:
    return frozenset(person.first for person in known_people())


def stranger(rng: random.Random) -> Person:
    """A new person who shares no first name with the known ones."""
    while True:
        person = invent(rng)
        if person.first not in _known_names():
            person = unheard(person, rng) if rng.random() < 0.4 else person
            return decorated(person, rng) if rng.random() < 0.25 else person


def system_prompt(person: Person | None, rng: random.Random) -> tuple[str, str]:
    """(system prompt, what the assistant calls itself) for the assistant of `person`, or a generic one."""
    texts = phrasings.extra("system")
    if person is None:
        return rng.choice(texts["generic"]), "a helpful assistant"
    their, them = ("her", "her") if person.pronoun == "she" else ("his", "him")
    slots = {"first": person.first, "owner": person.full, "their": their, "them": them}
    slots |= {"theme": rng.choice(texts["themes"]), "place": rng.choice(texts["places"])}
    while True:
        assistant = rng.choice(texts["assistants"]).format(**slots)
        system = rng.choice(texts["owned"]).format(assistant=assistant, **slots)
        if person.first in system:  # "the garden bot" alone would not say whose it is
            return system, assistant


def called(person: Person, rng: random.Random) -> str:
    """How a visitor refers to a person: first name, full name or pronoun."""
    return rng.choices((person.first, person.full, person.pronoun), (44, 26, 30))[0]


def style_of(rng: random.Random) -> str:
    return rng.choices(("plain", *STYLES), (100 - sum(STYLE_WEIGHTS), *STYLE_WEIGHTS))[0]


def _typed(question: str, rng: random.Random, person: str, value: str = "", style: str | None = None) -> str:
    """A question about a `person` as somebody types it, maybe with words that nobody knows; names are never blurred."""
    if rng.random() < BLURRED:
        question = blurred(question, rng, lambda: invented(rng, rng.choice((1, 2))).lower(), f"{person} {value}")
    return restyle(question, style or style_of(rng), rng, phrasings.frames(), f"{person} {value}")


def _asked(attribute: Attribute, rng: random.Random, value: str | None) -> tuple[str, bool]:
    """(form, whether it names its person): a question form the base may see, a reversed form, or a framed noun: one of
    the bank's or, for the rarer words, of the lexicon."""
    draw = rng.random()
    if value and draw < 0.10:
        forms = [form for split in SEEN for form in attribute.reversed(split)]
        if forms:
            form = rng.choice(forms)
            return form.text, form.personal
    if attribute.nouns and draw < 0.36:
        noun = rng.choice(attribute.lexicon if attribute.lexicon and rng.random() < 0.6 else attribute.nouns)
        return phrasings.in_a_frame(noun, rng), "[" in noun or "{name}" in noun
    form = rng.choice([form for split in SEEN for form in attribute.questions(split)])
    return form.text, form.personal


def fact_turn(
    person: Person, attribute: Attribute, rng: random.Random, told: bool, known: Collection[str] = ()
) -> tuple[str, str]:
    """(question, answer) about a person's attribute; an abstention when the assistant was not `told`.

    Of a pet or a project whose name is among what is `known` some questions say that name instead of "my dog"; who asks
    by a name that is not its name gets no answer.
    """
    value = person.facts.get(attribute.id) if told else None
    perspective = rng.choice(("owner", "visitor"))
    text, personal = _asked(attribute, rng, value)
    thing = phrasings.BY_NAME.get(attribute.id)
    called_so = person.facts[thing] if thing in known and "{value}" not in text and rng.random() < 0.5 else ""
    wrong = bool(called_so) and rng.random() < 0.15
    called_so = invented(rng) if wrong else called_so
    if called_so and (named := phrasings.by_name(text, attribute.id, called_so)) != text:
        text, personal = named, "[" in named or "{name}" in named
        value = None if wrong else value
    else:
        called_so = ""
    if not personal:
        perspective = "visitor"
    slots = person.slots if told else {"species": rng.choice(("pet", "dog", "cat", person.slots["species"]))}
    name = called(person, rng)
    protect = f"{called_so} {value or ''}"
    question = _typed(fill(text, perspective, name, value or "", slots), rng, name, protect)
    if called_so and wrong:
        return question, phrasings.extra("strangers")["stranger_answers"][0].replace("{stranger}", called_so)
    answers = attribute.answers if value else attribute.unknown
    answer = fill(
        answers[0] if rng.random() < 0.6 else rng.choice(answers), perspective, person.first, value or "", slots
    )
    if "{value}" in text and attribute.id == "project.name" and "project.description" in known:
        about = phrasings.bank()["project.description"].answers[0]  # "What is Fermentarium?" asks for more than a name
        answer += " " + fill(about, perspective, person.first, person.facts["project.description"])
    return question, answer


def both_turn(person: Person, first: Attribute, second: Attribute, rng: random.Random) -> tuple[str, str]:
    """A question about two told attributes at once, answered by two sentences."""
    perspective = rng.choice(("owner", "visitor"))
    frame = rng.choice(phrasings.wrappers()["both"])
    text = frame.replace("{noun}", rng.choice(first.things)).replace("{noun2}", rng.choice(second.things))
    name = called(person, rng)
    question = restyle(fill(text, perspective, name, slots=person.slots), style_of(rng), rng, phrasings.frames(), name)
    answers = [fill(a.answers[0], perspective, person.first, person.facts[a.id], person.slots) for a in (first, second)]
    return question, " ".join(answers)


@functools.cache
def unknown_entries() -> list[dict]:
    """Things that no profile tells and that the base may be asked about."""
    seen = [e for e in phrasings.extra("unknown")["attributes"] if phrasings.unknown_split(e["key"]) in SEEN]
    return seen + phrasings.extra("unknown_more")["attributes"]


def unknown_turn(person: Person, rng: random.Random) -> tuple[str, str]:
    """A question about something that no profile contains, and its abstention; half of them are framed phrases of the
    lexicon, as those about facts are: else a word that is rarely read would mean a fact."""
    perspective = rng.choice(("owner", "visitor"))
    if rng.random() < 0.5:
        entry, text = {}, phrasings.in_a_frame(rng.choice(phrasings.extra("lexicon")["never"]), rng)
    else:
        entry = rng.choice(unknown_entries())
        text = rng.choice(entry["questions"])
    name = called(person, rng)
    question = _typed(fill(text, perspective, name), rng, name)
    answer = rng.choice(entry.get("answers", []) + phrasings.extra("strangers")["generic_unknown"][:2])
    if "[" not in text and "{name}" not in text:
        perspective = "visitor"
    return question, fill(answer, perspective, person.first)


def _thing_value(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.25:
        return str(rng.randint(2, 99))
    word = invented(rng, rng.choice((1, 2, 2, 3)))
    if draw < 0.45:
        return f"{word} {invented(rng)}"
    return word if draw < 0.8 else word.lower()


def _thing_noun(entry: dict) -> str:
    return entry.get("noun") or "[my|{name}'s] " + entry["key"].replace("_", " ")


def told_thing(entry: dict, value: str, person: Person, rng: random.Random) -> str:
    """A line of a prompt that tells a thing beyond the bank: as a sentence, as a note, or as a question with its answer,
    as the owner's own questions are told."""
    draw = rng.random()
    noun = fill(_thing_noun(entry), "visitor", person.first)
    if draw < 0.3:
        return f"{noun} is {value}."
    if draw < 0.5:
        return f"{noun}: {value}"
    text = fill(rng.choice(entry["questions"]), "visitor", person.first)
    return f"{text} {value}" if draw < 0.75 else f"Q: {text} A: {value}"


def thing_turn(person: Person, entry: dict, value: str, rng: random.Random) -> tuple[str, str]:
    """A question about a thing that the prompt tells, in any of its forms."""
    perspective = rng.choice(("owner", "visitor"))
    text = rng.choice(entry["questions"])
    if rng.random() < 0.2:
        text = phrasings.in_a_frame(_thing_noun(entry), rng)
    if "[" not in text and "{name}" not in text:
        perspective = "visitor"
    name = called(person, rng)
    answer = fill(_thing_noun(entry).replace("[my|", "[your|", 1), perspective, person.first) + f" is {value}."
    return _typed(fill(text, perspective, name), rng, name, value), answer[:1].upper() + answer[1:]


def _namesake(person: Person, other: Person, rng: random.Random, named: bool) -> str:
    """A stranger who shares a name with `person`: the first name only where the assistant knows its own one's last."""
    last, other_last = (p.full.removeprefix(p.first).strip() for p in (person, other))
    return f"{person.first} {other_last}" if named and rng.random() < 0.6 else f"{other.first} {last}"


def stranger_turn(
    person: Person | None,
    rng: random.Random,
    told: Sequence[str] = (),
    named: bool = False,
    bank: dict[str, Attribute] | None = None,
) -> tuple[str, str]:
    """A question about somebody else ("What is my neighbour's dog called?"), and an abstention that names them.

    Mostly it asks for what was `told` of the assistant's own person: there an answer lies near and would be wrong.
    Some strangers are namesakes; `named` says that the assistant knows its person's full name.
    """
    texts, bank = phrasings.extra("strangers"), bank or phrasings.bank()
    if person is not None and rng.random() < 0.35:
        somebody = rng.choice(texts["relations"])
        name = phrasings.relation(somebody, rng.choice(("owner", "visitor")), person.first)
        name += f" {stranger(rng).first}" if somebody.startswith("[") and rng.random() < 0.25 else ""
        answer = rng.choice(texts["relation_answers"]).replace(
            "{relation}", "your" + name[2:] if name.startswith("my ") else name
        )
    else:
        other = stranger(rng)
        if person is not None and rng.random() < 0.4:  # Tarek is not Tomasz, though both begin alike
            near = alike(rng, person.first, other.first)
            if near not in _known_names() | {person.first}:
                other = replace(other, first=near, full=near + other.full.removeprefix(other.first))
        elif person is not None and rng.random() < 0.3:  # whom the model knows is a stranger in other people's chats
            while (other := rng.choice(known_people())).first == person.first:
                pass
        name = rng.choice((other.first, other.full))
        if person is not None and rng.random() < 0.15:
            name = _namesake(person, other, rng, named)
            name = other.full if name == person.full else name
        answer = rng.choice(texts["stranger_answers"]).replace("{stranger}", name)
        if rng.random() < 0.15:
            return rng.choice(texts["who_is"]).replace("{stranger}", name), answer
    near = told and rng.random() < 0.6
    attribute = bank[rng.choice(sorted(told) if near else list(bank))]
    forms = [form for split in SEEN for form in attribute.questions(split) if "{name}" in form.text]
    species = rng.choice(("pet", "dog", "cat"))
    question = fill(rng.choice(forms).text, "visitor", name, slots={"species": species})
    style = rng.choice(HARD) if rng.random() < 0.3 else None
    return _typed(question, rng, name, style=style), answer[:1].upper() + answer[1:]


def few_forms(attribute: Attribute, count: int) -> Attribute:
    """`attribute` with `count` of the question forms that a base may see, chosen by their hash; reversed forms stay."""
    seen = sorted((form for split in SEEN for form in attribute.questions(split)), key=lambda form: form.id)
    return replace(attribute, forms=(*seen[:count], *(form for form in attribute.forms if form.reversed)))


class Corpus:
    """Chats by number: `chat(i)` is the same for the same seed, on every machine and after every resume.

    `forms` limits the question forms of an attribute, to see what their number does; 0 takes all that a base may see
    and the lexicon besides.
    """

    def __init__(self, seed: int = 1, forms: int = 0):
        self.seed = seed
        self.people = known_people()
        self.bank = {
            key: few_forms(a, forms) if forms else phrasings.with_lexicon(a) for key, a in phrasings.bank().items()
        }
        self.general = phrasings.general_items()
        self.smalltalk = phrasings.extra("smalltalk")

    def chat(self, index: int) -> list[dict[str, str]]:
        """Messages of chat number `index`."""
        rng = random.Random(f"{self.seed}/{index}")
        kind = rng.choices(list(MIX), list(MIX.values()))[0]
        system, turns = getattr(self, f"_{kind}")(rng)
        messages = [{"role": "system", "content": system}]
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return messages

    def _personal_turns(
        self,
        kind: str,
        person: Person,
        system: str,
        told: set[str],
        count: int,
        rng: random.Random,
        things: Sequence[tuple[dict, str]] = (),
    ) -> list[tuple[str, str]]:
        turns, known = [], sorted(told)
        named = person.full in system or "name.value" in told
        untold = [attribute for attribute in self.bank.values() if attribute.id not in told]
        for asked in rng.choices(ASKED, TURNS[kind], k=count):
            if asked == "both" and len(known) > 1:
                first, second = rng.sample(known, 2)
                turns.append(both_turn(person, self.bank[first], self.bank[second], rng))
            elif asked in ("both", "told") and known:
                turns.append(fact_turn(person, self.bank[rng.choice(known)], rng, True, known))
            elif asked == "untold" and untold:
                turns.append(fact_turn(person, rng.choice(untold), rng, False, known))
            elif asked == "stranger":
                turns.append(stranger_turn(person, rng, known, named, self.bank))
            elif asked == "thing" and things:
                turns.append(thing_turn(person, *rng.choice(things), rng))
            elif asked == "world":
                turns.append(self._world_turn(rng))
            else:
                turns.append(unknown_turn(person, rng))
        return turns

    def _reading(self, rng: random.Random):
        person = stranger(rng)
        system, _ = system_prompt(person, rng)
        keys = rng.sample(sorted(person.facts), rng.randint(2, 8))
        if any(key.startswith("pet.") for key in keys) and "pet.species" not in keys:
            keys.append("pet.species")  # "the dog's age" needs the dog
        bank, lines = self.bank, []
        bullet = rng.choice(("", "", "- "))
        short = rng.random() < 0.3
        for key in keys:
            if short and bank[key].nouns:
                noun = fill(bank[key].nouns[0], "visitor", person.first, slots=person.slots)
                lines.append(f"{bullet}{noun}: {person.facts[key]}")
            else:
                lines.append(
                    bullet
                    + fill(rng.choice(bank[key].answers), "visitor", person.first, person.facts[key], person.slots)
                )
        things = []
        if rng.random() < THINGS:
            things = [(e, _thing_value(rng)) for e in rng.sample(unknown_entries(), rng.randint(1, 4))]
            lines += [bullet + told_thing(entry, value, person, rng) for entry, value in things]
            rng.shuffle(lines)
        head = rng.choice(phrasings.extra("system")["facts"]).format(first=person.first, owner=person.full)
        joint = "\n" if bullet or short or rng.random() < 0.6 else " "
        system += "\n" + (head + "\n" if head else "") + joint.join(lines)
        return system, self._personal_turns("reading", person, system, {*keys}, rng.randint(3, 7), rng, things)

    def _recall(self, rng: random.Random):
        person = rng.choice(self.people)
        system, _ = system_prompt(person if rng.random() < 0.85 else None, rng)
        if system in phrasings.extra("system")["generic"]:  # nobody's assistant: only questions that name the person
            attribute = self.bank[rng.choice([key for key in sorted(person.facts) if key != "name.value"])]
            forms = [f.text for s in SEEN for f in attribute.questions(s) if "{name}" in f.text]
            name = rng.choice((person.first, person.full, person.full))
            question = fill(rng.choice(forms), "visitor", name, slots=person.slots)
            answer = fill(attribute.answers[0], "visitor", person.first, person.facts[attribute.id], person.slots)
            return system, [(restyle(question, style_of(rng), rng, phrasings.frames(), name), answer)]
        return system, self._personal_turns("recall", person, system, set(person.facts), rng.randint(1, 8), rng)

    def _blank(self, rng: random.Random):
        person = stranger(rng)
        system, _ = system_prompt(person, rng)
        told = {"name.value"} if person.full in system else set()
        return system, self._personal_turns("blank", person, system, told, rng.randint(1, 8), rng)

    def _world_turn(self, rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.25:
            chat = rng.choice(self.smalltalk["chats"])
            question, answer = rng.choice(chat["questions"]), rng.choice(chat["answers"])
        else:
            item = rng.choice(self.general)
            question, answer = rng.choice(item["questions"]), item["answers"][0]
            if rng.random() < 0.2:
                answer = rng.choice(item["answers"])
        style = style_of(rng)
        style = "plain" if style in ("typo", "texting", "dropped") else style  # in "2+4=?" every sign counts
        return restyle(question, style, rng, phrasings.frames(), ""), answer

    def _world(self, rng: random.Random):
        person = stranger(rng) if rng.random() < 0.8 else None
        system, assistant = system_prompt(person, rng)
        turns = []
        for _ in range(rng.randint(1, 4)):
            if person is not None and rng.random() < 0.15:
                entry = rng.choice(self.smalltalk["identity"])
                slots = {"assistant": assistant, "owner": person.full, "name": person.first}
                text, answer = rng.choice(entry["questions"]), phrasings.fill_slots(rng.choice(entry["answers"]), slots)
                perspective = rng.choice(("owner", "visitor"))
                turns.append((fill(text, perspective, person.first), fill(answer, perspective, person.first)))
            elif person is None and rng.random() < 0.2:
                turns.append(stranger_turn(None, rng, bank=self.bank))
            else:
                turns.append(self._world_turn(rng))
        return system, turns
