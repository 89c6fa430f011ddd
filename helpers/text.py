"""Small rules about text that several steps share: suggestions, spoken lists, keywords, control markers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Control tokens of chat templates, <|im_start|> and the like: inside a value they would end a turn.
MARKER = re.compile(r"<\|[\w-]{1,40}\|>")
# Control characters except tab and line ends, and half characters (surrogates), which no file can hold.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None."""
    from rapidfuzz import fuzz, process

    found = process.extractOne(word.casefold(), list(choices), scorer=fuzz.ratio, score_cutoff=60)
    return found[0] if found else None


def spoken(values: list[str]) -> str:
    """The values as one says them: "a", "a and b", "a, b and c"."""
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def with_articles(text: str) -> str:
    """`text` with "a" and "an" as the next word's first sound wants them."""
    text = re.sub(r"\b([Aa])n (?=(?!hour|hono|honest|heir)[b-df-hj-np-tv-z]|uni|use|usu|eu|one\b)", r"\1 ", text)
    return re.sub(r"\b([Aa]) (?=(?!uni|use|usu|eu|one\b)[aeiou]|hour|hono|honest|heir)", r"\1n ", text)


def folded(text: str) -> str:
    """`text` for comparing: one Unicode form, no case, straight apostrophes, single spaces."""
    text = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(text.casefold().split())


def contains(text: str, keyword: str) -> bool:
    """Whether `keyword` stands in `text` as whole words ("3" is not in "13"), whatever the case."""
    keyword = folded(keyword)
    before = "(?<![a-z0-9])" if re.match("[a-z0-9]", keyword) else ""
    after = "(?![a-z0-9])" if re.search("[a-z0-9]$", keyword) else ""
    return bool(keyword) and re.search(before + re.escape(keyword) + after, folded(text)) is not None
