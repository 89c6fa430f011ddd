"""The checker of the phrasing bank: grammar of the filled forms, twins, splits and coverage, for whoever adds to it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from helpers import phrasings
from helpers.evaluation import is_abstention
from helpers.phrasings import Attribute, Form, fill, unknown_split
from helpers.rows import SPLITS

TWIN = 88  # per cent of likeness (rapidfuzz's ratio of the bare words) from which two forms count as one
ENOUGH = {"base": 15, "tune": 20, "heldout": 5}  # question forms an attribute needs in each split
# An object, whatever follows: "for he" is wrong in any sentence.
_OBJECTS = r"\b(?:at|behind|beside|by|for|from|near|of|on|to|towards|with|tell|ask|call) (?:I|he|she)\b"
# The wrong verb or case for a person.
_OWNER = r"\bI (?:is|has|does|lives|works|likes|speaks)\b|\b(?:does|is|has) I\b|\bme am\b|\bmy's\b|\bI's\b"
_VISITOR = r"\b[Hh]e (?:am|are)\b|\b(?:do|am|are) s?he\b|\b(?:hi[sm]|her)'s\b|\bhim (?:has|does|was)\b"
_POSSESSIVE = r"\b[Ss]?[Hh]e's (?!not|been|got|called|from|in\b|the\b|a\b)"
_ANY = (
    r"[{}\[\]|]",  # a bracket or a slot that nothing fills
    r"\s\s|^\s|\s$|\s[?.,!]|\s's",
    r"\b(?!for)([a-z]+) \1\b",  # a word twice
    r"[.?!] s?he\b",  # a sentence that begins with a small letter
    _OBJECTS,
    _POSSESSIVE,
)

# How a line of each kind of frame has to look: one slot, or none; a sign and a space before what follows.
_AROUND = r"([^{}\s][^{}]*)?\{noun\}[^{}]*"
_FRAME = {
    "noun": _AROUND,
    "clause": _AROUND,
    "before": r"[^{}\s][^{}]*[,.:!?-] ",
    "after": r" [^{}\s]([^{}]*[^{}\s])?",
}
_TOLD = (
    r"\b(?:s?he|hi[sm]|hers?|they|named?|names|called|aged?|old|birthdays?|born|li(?:ve|ves|ving)|address|town|city|jobs?|school"
    r"|employer|degree|wife|husband|spouse|partner|pets?|dogs?|cats?|hobb(?:y|ies)|favou?rites?|colou?rs?|languages?"
    r"|skills?|e-?mails?|websites?|goals?|projects?)\b"
)


@dataclass(frozen=True)
class Finding:
    """Something about a sentence of an attribute; a `fault` has to be mended, the rest is worth a look."""

    attribute: str
    what: str
    text: str
    fault: bool = True


def flaws(text: str) -> list[str]:
    """The readings of a form that are wrong: as its owner says it, and about "Alex", "he" and "she"."""
    found = []
    for perspective, name in (("owner", "Alex"), ("visitor", "Alex"), ("visitor", "he"), ("visitor", "she")):
        filled = fill(text, perspective, name, "VALUE", {"species": "dog"})
        wrong = (*_ANY, _OWNER if perspective == "owner" else _VISITOR)
        if any(re.search(pattern, filled) for pattern in wrong) or not filled[0].isupper():
            found.append(filled)
    return found


def sentences(attribute: Attribute) -> list[str]:
    """All that the bank can say about an attribute: questions, framed nouns, answers, abstentions."""
    framed = [text for noun in attribute.nouns for text in phrasings.framed(noun)]
    return [*(form.text for form in attribute.forms), *framed, *attribute.answers, *attribute.unknown]


def twins(forms: list[Form], others: list[str]) -> list[tuple[str, str]]:
    """(form, its twin) for each of `forms` that nearly equals one of the `others`."""
    from rapidfuzz import fuzz, process

    known = [phrasings.normal(text) for text in others]
    found = []
    for form in forms:
        match = process.extractOne(phrasings.normal(form.text), known, scorer=fuzz.ratio, score_cutoff=TWIN)
        if match:
            found.append((form.text, others[match[2]]))
    return found


def check(attribute: Attribute) -> list[Finding]:
    """What is wrong with an attribute's sentences, and which of its forms are nearly the same."""
    found = [Finding(attribute.id, "reads wrong", flaw) for text in sentences(attribute) for flaw in flaws(text)]
    for text in attribute.unknown:
        if not is_abstention(fill(text, "owner", "Alex")):
            found.append(Finding(attribute.id, "does not say that it does not know", text))
    for text in attribute.answers:
        if is_abstention(fill(text, "visitor", "Alex", "Buddy")):
            found.append(Finding(attribute.id, "an answer that says it does not know", text))
    trained = [form.text for form in attribute.forms if form.split != "heldout"]
    trained += [text for noun in attribute.nouns for text in phrasings.framed(noun)]
    for one, other in twins(attribute.questions("heldout"), trained):
        found.append(Finding(attribute.id, "held out, yet nearly a form that is trained on", f"{one} ~ {other}"))
    for number, form in enumerate(attribute.forms):
        for one, other in twins([form], [earlier.text for earlier in attribute.forms[:number]]):
            found.append(Finding(attribute.id, "nearly the same", f"{one} ~ {other}", fault=False))
    for split, enough in ENOUGH.items():
        if (count := len(attribute.questions(split))) < enough:
            found.append(Finding(attribute.id, "too few forms", f"{count} in the split {split}, {enough} are needed"))
    return found


def check_lexicon(attribute: Attribute) -> list[Finding]:
    """What is wrong with an attribute's part of `_lexicon.yaml`: the grammar, a held-out form as a twin."""
    lexicon = phrasings.extra("lexicon")
    phrases, questions = (lexicon[part].get(attribute.id, []) for part in ("nouns", "questions"))
    read = [*(f"Tell me {noun}." for noun in phrases), *questions]
    found = [Finding(attribute.id, "reads wrong", flaw) for text in read for flaw in flaws(text)]
    trained = [*(text for noun in phrases for text in phrasings.framed(noun)), *questions]
    for one, other in twins(attribute.questions("heldout"), trained):
        found.append(Finding(attribute.id, "held out, yet nearly in the lexicon", f"{one} ~ {other}"))
    return found


def check_never() -> list[Finding]:
    """What is wrong with what is never told: a slot in a question that nothing fills; in the lexicon's phrases the
    grammar, a thing that is told or one that is held out as their twin."""
    phrases = phrasings.extra("lexicon")["never"]
    found = [Finding("never", "reads wrong", flaw) for noun in phrases for flaw in flaws(f"Tell me {noun}.")]
    for entry in (entry for file in ("unknown", "unknown_more") for entry in phrasings.extra(file)["attributes"]):
        for text in entry["questions"]:
            if "{species}" in text:
                found.append(Finding("never", "a {species} of which nothing is told", text))
    told = [noun for a in phrasings.bank().values() for noun in (*a.nouns, *phrasings.extra("lexicon")["nouns"][a.id])]
    for one, other in twins([Form("", noun, "") for noun in phrases], told):
        found.append(Finding("never", "never told, yet nearly a phrase for a fact", f"{one} ~ {other}"))
    held_out = [entry for entry in phrasings.extra("unknown")["attributes"] if unknown_split(entry["key"]) == "heldout"]
    questions = [Form("", text, "heldout") for entry in held_out for text in (*entry["questions"], entry["noun"])]
    for one, other in twins(questions, [text for noun in phrases for text in (*phrasings.framed(noun), noun)]):
        found.append(Finding("never", "held out, yet nearly a phrase of the lexicon", f"{one} ~ {other}"))
    return found


def check_frames() -> list[Finding]:
    """What is wrong with the lines of `_frames.yaml`: their slots and ends, words for a fact, or a held-out form that
    one of the bank's nouns makes of them."""
    lines, found = phrasings.extra("frames"), []
    for kind, frames in lines.items():
        for text in frames:
            if not re.fullmatch(_FRAME[kind], text) or re.search(r"\s\s", text):
                found.append(Finding("frames", f"does not fit among those of {kind}", text))
            if match := re.search(_TOLD, text, re.IGNORECASE):
                found.append(Finding("frames", f"holds {match.group()!r}, which may be asked for", text))
    for attribute in phrasings.bank().values():
        made = [
            frame.replace("{noun}", noun)
            for noun in attribute.nouns
            for frame in lines["clause" if phrasings.is_clause(noun) else "noun"]
        ]
        for one, other in twins(attribute.questions("heldout"), made):
            found.append(Finding(attribute.id, "held out, yet nearly a noun in a frame", f"{one} ~ {other}"))
    return found


def check_several() -> list[Finding]:
    """What is wrong with the questions about all pets at once: their grammar, one held out as a trained one's twin."""
    found = []
    for kind, texts in phrasings.extra("several").items():
        found += [Finding(f"several {kind}", "reads wrong", flaw) for text in texts for flaw in flaws(text)]
        held_out = [Form("", text, "heldout") for text in texts[4::5]]
        for one, other in twins(held_out, [text for number, text in enumerate(texts) if number % 5 < 4]):
            found.append(
                Finding(f"several {kind}", "held out, yet nearly a form that is trained on", f"{one} ~ {other}")
            )
    return found


def check_mentions() -> list[Finding]:
    """What is wrong with the questions that say a value: their slot, their grammar, a list for nothing that the bank
    knows, one held out as a trained one's twin."""
    data, found = phrasings.extra("mentions"), []
    lists = [(f"guesses {key}", "value", texts) for key, texts in data["guesses"].items()]
    for key, texts in data["beside"].items():
        asked, _, other = key.partition("+")
        if asked not in phrasings.bank() or f"{asked.partition('.')[0]}.{other}" not in phrasings.bank():
            found.append(Finding(f"beside {key}", "no two facts of one thing", key))
        lists.append((f"beside {key}", other, texts))
    for key in phrasings.bank().keys() ^ data["guesses"].keys():
        found.append(Finding(f"guesses {key}", "has no list or no attribute", key))
    for name, slot, texts in lists:
        for text in texts:
            if text.count("{" + slot + "}") != 1:
                found.append(Finding(name, f"needs {{{slot}}} once", text))
        plain = [text.replace("{" + slot + "}", "{value}") for text in texts]
        found += [Finding(name, "reads wrong", flaw) for text in plain for flaw in flaws(text)]
        held_out = [Form("", text, "heldout") for text in plain[4::5]]
        trained = [text for number, text in enumerate(plain) if number % 5 < 4]
        found += [
            Finding(name, "held out, yet nearly a form that is trained on", f"{one} ~ {other}")
            for one, other in twins(held_out, trained)
        ]
    return found


def coverage(attribute: Attribute) -> dict[str, int]:
    """How many questions of each split, reversed forms, answers and abstentions an attribute has."""
    counts = Counter(form.split for form in attribute.forms if not form.reversed)
    turned = sum(form.reversed for form in attribute.forms)
    told = {"reversed": turned, "answers": len(attribute.answers), "unknown": len(attribute.unknown)}
    return {"questions": sum(counts.values()), **{split: counts[split] for split in SPLITS}, **told}
