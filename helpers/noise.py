"""Questions as people type them: lower case, no punctuation, typos, ALL CAPS, words around the question."""

from __future__ import annotations

import random
import re

# Neighbours on a QWERTY keyboard, for slips of the finger.
_NEAR = "wa qse wdr eft rgy tuh yij uko ilp ol qsz awdx sefc drgv fthb gyjn hukm jil kop asx zdc xfv cgb vhn bjm njk"
_KEYS = dict(zip("qwertyuiopasdfghjklzxcvbnm", _NEAR.split(), strict=True))
STYLES = ("lower", "nopunct", "typo", "caps", "wrapped")


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


def restyle(text: str, style: str, rng: random.Random, frames: dict[str, list[str]], protect: str = "") -> str:
    """`text` in one of STYLES (or unchanged for "plain"). `frames` are the bank's wrappers."""
    if style == "lower":
        return text.lower()
    if style == "nopunct":
        return text.rstrip("?.! ").replace("'", "").replace(",", "").lower()
    if style == "caps":
        return text.upper()
    if style == "typo":
        slipped = typo(text, rng, protect)
        return slipped.lower() if rng.random() < 0.5 else slipped
    if style == "wrapped":
        if rng.random() < 0.5:
            before = rng.choice(frames["before"])
            named = _bare(text.split(" ")[0]) in map(_bare, protect.split())
            keep = named or text.startswith(("I ", "I'")) or before.rstrip().endswith((".", "!"))
            return before + (text if keep else text[:1].lower() + text[1:])
        return text + rng.choice(frames["after"])
    return text
