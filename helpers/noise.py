"""Questions as people type them: lower case, no punctuation, typos, ALL CAPS, words around the question, text speak."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

# Neighbours on a QWERTY keyboard, for slips of the finger.
_NEAR = "wa qse wdr eft rgy tuh yij uko ilp ol qsz awdx sefc drgv fthb gyjn hukm jil kop asx zdc xfv cgb vhn bjm njk"
_KEYS = dict(zip("qwertyuiopasdfghjklzxcvbnm", _NEAR.split(), strict=True))
STYLES = ("lower", "nopunct", "typo", "caps", "wrapped", "texting", "dropped")
# How words are written in a hurry: by their sound, or cut short.
_SHORT = {
    "you": "u", "you're": "ur", "your": "ur", "are": "r", "please": "pls plz", "what": "wat wut",
    "what's": "whats wats", "who's": "whos", "where's": "wheres", "when's": "whens", "how's": "hows",
    "which": "wich whch", "because": "cuz", "people": "ppl", "about": "abt bout", "birthday": "bday b-day",
    "favourite": "fav fave favorite favourit", "favorite": "fav fave favrite", "though": "tho", "really": "rly",
    "does": "dose", "doesn't": "doesnt", "with": "w/", "brother": "bro", "sister": "sis", "know": "kno",
    "thanks": "thx", "something": "smth sth", "where": "wher were", "school": "skool", "right": "rite",
    "colour": "color coulor", "language": "langauge", "languages": "langs langauges", "degree": "degre",
    "university": "uni", "partner": "partnr", "girlfriend": "gf", "boyfriend": "bf", "email": "mail e-mail",
    "picture": "pic", "address": "adress", "website": "site web-site", "hobby": "hobbie", "hobbies": "hobbys",
    "skills": "skillz", "music": "muzik", "born": "brn", "years": "yrs", "year": "yr", "live": "liv", "lives": "livs",
    "project": "proj", "employer": "employr", "from": "frm", "and": "n &", "this": "dis", "that": "dat tht",
    "have": "hav", "love": "luv", "loves": "luvs", "good": "gud", "okay": "ok", "information": "info", "number": "nr",
    "before": "b4", "going": "goin", "doing": "doin", "working": "workin", "called": "calld", "their": "there",
    "tell": "tel", "job": "jobb", "work": "wrk", "works": "wrks", "company": "compny", "friend": "frend",
    "friends": "frends", "neighbour": "neighbor nabor", "name": "nam", "breed": "bred", "food": "fud",
    "somebody": "sb", "could": "cud", "would": "wud", "should": "shud", "don't": "dont", "can't": "cant", "i'm": "im",
    "it's": "its", "goal": "gole",
}  # fmt: skip
_SMALL = frozenset("a an the is are was were do does did of to".split())


def _bare(word: str) -> str:
    """A word without case, the signs around it and a possessive "'s"."""
    return re.sub(r"^\W+|(?:['’]s)?\W*$", "", word.lower())


def typo(text: str, rng: random.Random, protect: str = "") -> str:
    """One slip in each of one or two words of four letters or more; words of `protect` stay as they are."""
    words = text.split(" ")
    kept = {_bare(word) for word in protect.split()}
    letters = [len(word.rstrip("?.!,:;\"'")) for word in words]  # a slip never moves the sign behind a word
    places = [i for i, word in enumerate(words) if letters[i] >= 4 and word.isascii() and _bare(word) not in kept]
    for i in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        word = words[i]
        at = rng.randrange(1, letters[i] - 1)
        kind = rng.randrange(4)
        if kind == 0:
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 1:
            word = word[:at] + word[at + 1 :]
        elif kind == 2:
            word = word[:at] + word[at] + word[at:]
        else:
            word = word[:at] + rng.choice(_KEYS.get(word[at].lower(), word[at])) + word[at + 1 :]
        words[i] = word
    return " ".join(words)


def texting(text: str, rng: random.Random, protect: str = "") -> str:
    """`text` in text speak: about two words in three that have a short form get it; `protect` as in `typo`."""
    kept, words = {_bare(word) for word in protect.split()}, text.lower().rstrip("?. ").split(" ")
    for i, word in enumerate(words):
        plain = re.sub(r"^\W+|\W+$", "", word)
        if plain in _SHORT and plain not in kept and rng.random() < 0.65:
            words[i] = word.replace(plain, rng.choice(_SHORT[plain].split()))
    return " ".join(words) + rng.choice(("", "", "?", "??"))


def dropped(text: str, rng: random.Random) -> str:
    """`text` without some of its small words ("What is the dog called?" -> "What dog called?"); two words are left."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if word.lower() in _SMALL]
    gone = {i for i in places if rng.random() < 0.7} or set(places[:1])
    left = [word for i, word in enumerate(words) if i not in gone]
    return " ".join(left) if len(left) > 1 else text


def blurred(text: str, rng: random.Random, strange: Callable[[], str], protect: str = "") -> str:
    """`text` with one or two words gone or exchanged for a `strange()` one; words of `protect` and short texts stay.

    As a question looks to a reader who does not know all of its words (word dropout, Iyyer et al. 2015): what is asked
    has to be understood from the rest.
    """
    kept, words = {_bare(word) for word in protect.split()}, text.split(" ")
    places = [i for i, word in enumerate(words) if _bare(word) not in kept]
    if len(words) < 5:
        return text
    for i in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        sign = re.search(r"\W*$", words[i]).group()
        words[i] = "" if rng.random() < 0.5 else strange() + sign
    left = " ".join(word for word in words if word)
    return left[:1].upper() + left[1:]


def restyle(text: str, style: str, rng: random.Random, frames: dict[str, list[str]], protect: str = "") -> str:
    """`text` in one of STYLES (or unchanged for "plain"). `frames` are the bank's wrappers."""
    if style == "lower":
        return text.lower()
    if style == "nopunct":
        return text.rstrip("?.! ").replace("'", "").replace(",", "").lower()
    if style == "caps":
        return text.upper()
    if style == "texting":
        return texting(text, rng, protect)
    if style == "dropped":
        return dropped(text.lower() if rng.random() < 0.5 else text, rng)
    if style == "typo":
        slipped = typo(text, rng, protect)
        return slipped.lower() if rng.random() < 0.5 else slipped
    if style == "wrapped":
        if rng.random() < 0.5:
            before = rng.choice(frames["before"])
            named = _bare(text.split(" ")[0]) in map(_bare, protect.split())
            keep = named or text.startswith(("I ", "I'")) or before.rstrip().endswith((".", "!", "?"))
            return before + (text if keep else text[:1].lower() + text[1:])
        return text + rng.choice(frames["after"])
    return text
