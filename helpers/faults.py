"""What tuned models still get wrong, counted by kind from the answers of their evaluations."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from helpers import phrasings
from helpers.evaluation import is_abstention
from helpers.results import metric

RARE, COMMON = 4, 11  # a word is rare below so many trained forms, common from so many
WORST = 4  # so many kinds are named


def _words(text: str) -> set[str]:
    """The words of a question form, of both sides where it has two, without its slots."""
    return set(re.findall(r"[a-z']+", re.sub(r"\{[^}]*\}", " ", text.lower())))


def _rarity(trained: int) -> str:
    return "rare" if trained < RARE else "common" if trained >= COMMON else "seldom"


def count(answers: Iterable[dict], wild: Iterable[dict]) -> dict:
    """Of `answers` and of those to `wild` questions (rows as `evaluation.ask_all` returns them) the shares of right
    ones, as metrics.

    `told`: facts asked for in forms nobody saw, as written: `all`; `by_word`: by the word of the form that stands in
    the fewest forms of the bank that a training may see (rare, seldom, common); `by_fact`; `silent`: of the wrong
    ones those that abstain. `never`: things that are never told and held out, by their key.
    """
    forms = [form for attribute in phrasings.bank().values() for form in attribute.forms]
    texts = {form.id: form.text for form in forms}
    trained = Counter(word for form in forms if form.split != "heldout" for word in _words(form.text))
    told, words, facts, silent, never = [], defaultdict(list), defaultdict(list), [], defaultdict(list)
    for row in answers:
        right = row["right"]
        if row["fact"].startswith("never."):
            never[row["fact"].removeprefix("never.")].append(right)
        elif row["kind"] == "fact" and row["split"] == "heldout" and row["style"] == "plain":
            told.append(right)
            facts[re.sub(r"\.\d+", "", row["fact"])].append(right)
            if not right:
                silent.append(is_abstention(row["answer"]))
            if form := texts.get(row["phrasing"]):  # the user's own questions are not of the bank
                said = _words(phrasings.fill(form, row["perspective"], ""))
                words[_rarity(min(map(trained.__getitem__, said)))].append(right)
    people: dict[str, list[bool]] = defaultdict(list)
    for row in wild:
        if row["kind"] == "fact":
            people[row["fact"]].append(row["right"])
    return {
        "told": {"all": _share(told), "by_word": _shares(words), "by_fact": _shares(facts), "silent": _share(silent)},
        "never": _shares(never),
        "wild": _shares(people),
    }


def _share(right: list[bool]) -> dict:
    return metric(sum(right), len(right))


def _shares(groups: dict[str, list[bool]]) -> dict[str, dict]:
    return {name: _share(groups[name]) for name in sorted(groups)}


def as_text(found: dict) -> str:
    """What `count` found, as a Markdown list."""
    told, never = found["told"], found["never"]
    common, seldom, rare = (_said(told["by_word"][name]) for name in ("common", "seldom", "rare"))
    worst, wild = _worst(told["by_fact"]), _worst(found["wild"])
    invented = sorted((one["n"] - _right(one) for one in never.values()), reverse=True)
    return (
        f"- **Facts in forms nobody saw** ({told['all']['n']:,} questions as written): {told['silent']['n']} wrong, of "
        f"which {_right(told['silent'])} say that they do not know. Right are {common} where each word "
        f"of the form stands in at least {COMMON} of the bank's trained forms, {seldom} where one stands in {RARE} to "
        f"{COMMON - 1}, {rare} where one stands in fewer. Weakest: "
        + worst
        + f".\n- **Things never told and held out** ({len(never)} things, {sum(one['n'] for one in never.values()):,} "
        f"questions): {sum(invented)} get an invented answer, {sum(invented[:3])} of them about three of the things."
        f"\n- **Questions in the wild** about {len(found['wild'])} facts: weakest are {wild}."
    )


def _worst(facts: dict[str, dict]) -> str:
    worst = sorted(facts.items(), key=lambda item: item[1]["value"])[:WORST]
    return ", ".join(f"`{name}` {_said(one)}" for name, one in worst)


def _right(one: dict) -> int:
    return round(one["value"] * one["n"])


def _said(one: dict) -> str:
    return f"{100 * one['value']:.1f} % (n={one['n']})"
