"""Questions of the user's own in other words: who is asked about stays clear, and the words do change."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from helpers import phrasings, quality, synthesis
from helpers.custom import addressed, reworded, told_to_owner
from helpers.evaluation import is_abstention
from helpers.models import ROOT
from helpers.profile import load_profile
from helpers.quality import answer, question
from helpers.text import contains

NAMES = ("alex", "mira", "tomasz")


@pytest.mark.parametrize(
    "asked, who, said",
    [
        ("Which dish won Ana Reis her first prize?", "owner", "Which dish won me my first prize?"),
        ("Which dish won Ana her first prize?", "he", "Which dish won him his first prize?"),
        ("Which dish won Ana her first prize?", "Ana Reis", "Which dish won Ana Reis her first prize?"),
        ("What was Ana's first car?", "owner", "What was my first car?"),
        ("What was Ana's first car?", "she", "What was her first car?"),
        ("Which hill did Ana climb first?", "owner", "Which hill did I climb first?"),
        ("What does Ana collect?", "owner", "What do I collect?"),
        ("Does Ana sing?", "owner", "Do I sing?"),
        ("Does Ana sing?", "he", "Does he sing?"),
        ("Has Ana met her hero?", "owner", "Have I met my hero?"),
        ("What is Ana allergic to?", "owner", "What am I allergic to?"),
        ("What's Ana afraid of?", "owner", "What am I afraid of?"),
        ("What's Ana afraid of?", "she", "What's she afraid of?"),
        ("What's Ana's blood type?", "owner", "What's my blood type?"),
        ("Who taught Ana to sail?", "owner", "Who taught me to sail?"),
        ("Who taught Ana to sail?", "Lena", "Who taught Lena to sail?"),
        ("What is the name of Ana's boat?", "Lena", "What is the name of Lena's boat?"),
        ("Where is the spare key?", "owner", "Where is the spare key?"),
        ("Was the Anaconda found by Ana?", "owner", "Was the Anaconda found by me?"),
    ],
)
def test_who_asks_about_whom(asked, who, said):
    assert addressed(asked, "Ana", "Ana Reis", who) == said


@pytest.mark.parametrize(
    "told, said",
    [
        ("Ana won her first prize with a soup.", "You won your first prize with a soup."),
        ("Ana Reis is allergic to nuts.", "You are allergic to nuts."),
        ("Ana's first car was a Panda.", "Your first car was a Panda."),
        ("The first hill Ana's brother climbed was Pico.", "The first hill your brother climbed was Pico."),
        ("Ana drives a Panda.", "Ana drives a Panda."),  # the verb would have to change
        ("The key hangs in the shed.", "The key hangs in the shed."),
    ],
)
def test_what_the_owner_is_told(told, said):
    assert told_to_owner(told, "Ana", "Ana Reis") == said


def test_other_words_ask_the_same_of_the_same_person():
    asked, rng = "Which dish won Ana Reis her first prize at school?", random.Random(1)
    said = [reworded(asked, rng, "Ana Reis") for _ in range(400)]
    assert len(set(said)) > 300 and all(text == text.strip() and "  " not in text and "{" not in text for text in said)
    assert all("Ana Reis" in text for text in said)
    assert [reworded(asked, random.Random(2), "Ana Reis")] == [reworded(asked, random.Random(2), "Ana Reis")]
    swaps = phrasings.extra("synonyms")
    for word in ("dish", "prize", "school"):
        others = sum(any(contains(text, other) for other in swaps[word]) for text in said)
        assert others > 100 and sum(contains(text, word) for text in said) > 50, word
    assert not any(re.search(r"\b[Aa] [aeio]\w|\b[Aa]n [b-dfgj-np-tv-z]\w", text) for text in said)


def test_the_thesaurus_is_of_words_and_never_of_a_word_for_itself():
    swaps = phrasings.extra("synonyms")
    assert len(swaps) > 1500
    for word, others in swaps.items():
        assert others and word not in others and len(set(others)) == len(others), word
        assert all(re.fullmatch(r"[\w' -]+", text) and text == text.strip() for text in (word, *others)), word


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {name: synthesis.synthesize(load_profile(ROOT / "data" / "profiles" / f"{name}.yaml")) for name in NAMES}


@pytest.mark.parametrize("name", ["alex", "tomasz"])
def test_own_questions_are_trained_in_other_words_by_both_sides_and_never_told_of_a_stranger(name, rows):
    mine = [row for row in rows[name] if row["fact"] == "custom.1"]
    sides = Counter(row["perspective"] for row in mine if row["phrasing"].endswith("/other"))
    assert min(sides["owner"], sides["visitor"]) > 80
    assert len({question(row) for row in mine}) > 0.8 * len(mine)
    others = [row for row in rows[name] if row["fact"] == "stranger.custom"]
    assert len(others) > 10 and all(is_abstention(answer(row)) for row in others)
    owner = load_profile(ROOT / "data" / "profiles" / f"{name}.yaml").first_name
    assert not any(re.search(rf"\b{owner}\b", question(row), re.IGNORECASE) for row in others)


def test_a_project_is_asked_for_by_its_name_often_enough_not_to_be_a_stranger(rows):
    named = [row for row in rows["tomasz"] if contains(question(row), "Fermentarium")]
    told = [row for row in named if row["fact"] == "project.1.description"]
    assert len(told) > 90 and all(contains(answer(row), "pickling experiments") for row in told)
    assert not any(is_abstention(answer(row)) for row in named if row["kind"] != "stranger")  # Lena's Fermentarium
    other = [row for row in rows["tomasz"] if row["fact"] == "stranger.project.description"]
    unknown = [row for row in other if answer(row).split()[-1].rstrip(".").lower() in question(row).lower()]
    assert len(unknown) > 10 and all(is_abstention(answer(row)) for row in unknown)


def test_all_pets_are_asked_for_at_once_where_there_are_several(rows):
    profile = load_profile(ROOT / "data" / "profiles" / "mira.yaml")
    trained = [row for row in rows["mira"] if row["phrasing"].startswith("several.names")]
    scored = [r for r in synthesis.evaluation_questions(profile) if r["phrasing"].startswith("several.")]
    assert len(trained) > 150 and len(scored) >= 12
    assert all(contains(answer(row), "Pumpernick") and contains(answer(row), "Oswinda") for row in trained)
    assert not {row["phrasing"] for row in trained} & {row["phrasing"] for row in scored}
    assert len(quality.drop_trained(trained, scored)) == len(scored)
    assert not any(row["phrasing"].startswith("several.") for name in ("alex", "tomasz") for row in rows[name])
