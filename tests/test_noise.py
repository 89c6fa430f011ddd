"""Questions as people type them: what the noise may change, and what it must leave alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import phrasings
from helpers.noise import STYLES, blurred, restyle, typo

FRAMES = phrasings.wrappers()
WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=12),
    min_size=1,
    max_size=8,
)
LETTERS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ", min_size=1, max_size=12)


def distance(one: str, two: str) -> int:
    from rapidfuzz.distance import DamerauLevenshtein

    return DamerauLevenshtein.distance(one, two)


@settings(max_examples=100, deadline=None)
@given(WORDS, st.integers())
def test_a_typo_is_one_slip_in_at_most_two_words(words, seed):
    text = " ".join(words)
    slipped = typo(text, random.Random(seed))
    assert len(slipped.split(" ")) == len(words)
    changed = [(a, b) for a, b in zip(words, slipped.split(" "), strict=True) if a != b]
    assert len(changed) <= 2
    assert all(distance(a, b) == 1 and len(a) >= 4 and a[0] == b[0] for a, b in changed)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(LETTERS, min_size=1, max_size=3),
    st.lists(LETTERS, max_size=5),
    st.integers(),
    st.sampled_from(["{}", "{}?", "{},", "{}'s", "{}'s?", "“{}”", "({})"]),
)
def test_protected_words_stay(kept, others, seed, form):
    words = [form.format(word) for word in kept] + [w for w in others if w.lower() not in map(str.lower, kept)]
    slipped = typo(" ".join(words), random.Random(seed), protect=", ".join(kept))
    assert slipped.split(" ")[: len(kept)] == words[: len(kept)]


@pytest.mark.parametrize("name", ["James", "Alexis", "Bistro Zakwas", "Jonas Berg"])
def test_names_that_end_with_s_stay(name):
    for seed in range(60):
        assert name in typo(f"{name}'s {name} {name}?", random.Random(seed), protect=name)


def test_typos_happen():
    slipped = [typo("Which colour does Alex prefer?", random.Random(seed), "Alex") for seed in range(40)]
    assert sum(text != "Which colour does Alex prefer?" for text in slipped) >= 35
    assert len(set(slipped)) >= 20


@settings(max_examples=60, deadline=None)
@given(WORDS, st.sampled_from(("plain", *STYLES)), st.integers())
def test_a_style_is_the_same_for_the_same_seed(words, style, seed):
    text = " ".join(words)
    assert restyle(text, style, random.Random(seed), FRAMES) == restyle(text, style, random.Random(seed), FRAMES)


def test_what_each_style_does():
    text, rng = "What's Alex's dog called, then?", random.Random(0)
    assert restyle(text, "plain", rng, FRAMES) == text
    assert restyle(text, "lower", rng, FRAMES) == "what's alex's dog called, then?"
    assert restyle(text, "nopunct", rng, FRAMES) == "whats alexs dog called then"
    assert restyle(text, "caps", rng, FRAMES) == "WHAT'S ALEX'S DOG CALLED, THEN?"


def test_text_speak_shortens_words_and_spares_names():
    said = {
        restyle("What is your favourite colour, Will?", "texting", random.Random(n), FRAMES, "Will") for n in range(80)
    }
    assert len(said) > 20 and all("will" in text and text == text.lower() for text in said)
    assert any(text.startswith(("wat ", "wut ")) for text in said) and any(" ur fav " in text for text in said)
    names = {restyle("Where does Job live?", "texting", random.Random(n), FRAMES, "Job Dose") for n in range(40)}
    assert all(" job " in text for text in names)


def test_dropped_words_are_small_ones():
    said = {restyle("What is the name of Alex's dog?", "dropped", random.Random(n), FRAMES).lower() for n in range(60)}
    assert "what name alex's dog?" in said and len(said) >= 6
    assert all(set(text.split()) >= {"what", "name", "alex's", "dog?"} and len(text.split()) < 7 for text in said)
    assert restyle("Is he?", "dropped", random.Random(0), FRAMES).lower() == "is he?"  # one word would say nothing


def test_wrapping_keeps_the_words_and_the_capital_of_names():
    wrapped = {restyle("Where does Alex live?", "wrapped", random.Random(seed), FRAMES, "Alex") for seed in range(60)}
    assert len(wrapped) > 15
    for text in wrapped:
        assert "here does Alex live?" in text and "  " not in text
        assert any(text.startswith(b) for b in FRAMES["before"]) != any(text.endswith(a) for a in FRAMES["after"])
    assert {
        restyle("Alex lives where?", "wrapped", random.Random(n), FRAMES, "Alex").count("Alex lives where?")
        for n in range(40)
    } == {1}
    assert {
        restyle("I live where?", "wrapped", random.Random(n), FRAMES).count("I live where?") for n in range(40)
    } == {1}
    lowered = [
        restyle("A dog or a cat?", "wrapped", random.Random(n), {"before": ["Hey, "], "after": []}, "Alex")
        for n in (1, 2, 5, 6, 7)
        if random.Random(n).random() < 0.5
    ]
    assert lowered and set(lowered) == {"Hey, a dog or a cat?"}  # "A" is no part of "Alex"


@pytest.mark.parametrize("seed", range(40))
def test_blurring_takes_or_exchanges_one_or_two_words_and_no_name(seed):
    text = "Could you tell me what Mara Kowal's old dog is called?"
    told = blurred(text, random.Random(seed), lambda: "zub", "Mara Kowal")
    words, left = [w.lower() for w in text.split(" ")], [w.lower() for w in told.split(" ")]
    strange = sum(word.rstrip("?") == "zub" for word in left)
    kept = [word for word in left if word.rstrip("?") != "zub"]
    assert 1 <= len(words) - len(kept) <= 2 and strange <= 2
    assert [word for word in words if word in kept] == kept  # the rest stays, in its order
    assert "Mara Kowal's" in told and told[:1].isupper()
    assert left[-1].endswith("?") or "called?" not in left  # the sign of an exchanged word stays


def test_blurring_does_both_and_leaves_short_texts_alone():
    told = {blurred("What is the name of my dog?", random.Random(seed), lambda: "zub") for seed in range(60)}
    assert any("zub" in text.lower() for text in told) and any(len(text.split(" ")) < 7 for text in told)
    assert blurred("Name of the dog?", random.Random(1), lambda: "zub") == "Name of the dog?"
