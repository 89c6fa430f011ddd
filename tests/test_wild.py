"""Questions in the wild: well formed, never a form of the bank, never trained on, and counted as they should be."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from rapidfuzz import fuzz, process

from helpers import phrasings, synthesis
from helpers.evaluation import ask_all
from helpers.files import read_jsonl
from helpers.models import ROOT
from helpers.phrasings import fill
from helpers.profile import load_profile
from helpers.text import contains
from helpers.wild import WILD, wild_rows, wild_scores

NAMES = ("alex", "mira", "tomasz")
PATHS = {name: ROOT / "data" / "profiles" / f"{name}.yaml" for name in NAMES}
ENTRIES = read_jsonl(WILD)


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def test_there_are_enough_of_each_kind_and_profile_and_none_stands_twice():
    assert len(ENTRIES) >= 400 and len({entry["id"] for entry in ENTRIES}) == len(ENTRIES)
    kinds = Counter(entry["kind"] for entry in ENTRIES)
    assert set(kinds) == {"fact", "unknown", "stranger"} and kinds["unknown"] + kinds["stranger"] >= 120
    assert min(Counter((entry["profile"], entry["kind"]) for entry in ENTRIES).values()) >= 25
    assert len({(entry["profile"], plain(entry["question"])) for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("name", NAMES)
def test_keywords_and_leaks_are_the_profile_s_own_words(name):
    told = PATHS[name].read_text(encoding="utf-8")
    for entry in (entry for entry in ENTRIES if entry["profile"] == name):
        assert all(contains(told, word) for word in [*entry["keywords"], *entry.get("leak", [])]), entry["id"]
        assert bool(entry["keywords"]) == (entry["kind"] == "fact"), entry["id"]
        assert bool(entry.get("leak")) == (entry["kind"] == "stranger"), entry["id"]
        assert entry["perspective"] in ("owner", "visitor")


def bank_sentences(profile) -> list[str]:
    """Every form of the bank as this profile's owner or visitors would say it, also with a thing's own name in it."""
    values: dict[str, list[str]] = {}
    for item in profile.items():
        values.setdefault(item.bank_id, []).append(item.value)
    told = set()
    for attribute in phrasings.bank().values():
        framed = [text for noun in attribute.nouns for text in phrasings.framed(noun)]
        texts = [(form.text, form.reversed) for form in attribute.forms] + [(text, False) for text in framed]
        for called in values.get(phrasings.BY_NAME.get(attribute.id, ""), []):
            texts += [(phrasings.by_name(text, attribute.id, called), turned) for text, turned in texts]
        if attribute.id in ("pet.name", "pet.species"):
            several = phrasings.extra("several")["names" if attribute.key == "name" else "kinds"]
            texts += [(text, False) for text in several]
        texts += [(text, True) for text in phrasings.extra("mentions")["guesses"][attribute.id]]
        for text, turned in texts:
            for species in ("dog", "cat", "donkey", "pet") if "{species}" in text else ("",):
                for value in values.get(attribute.id, []) if turned else [""]:
                    told.add(plain(fill(text, "owner", profile.first_name, value, {"species": species})))
                    for who in (profile.first_name, profile.owner, "he", "she"):
                        told.add(plain(fill(text, "visitor", who, value, {"species": species})))
    for key, forms in phrasings.extra("mentions")["beside"].items():
        asked, _, other = key.partition("+")
        for value in values.get(f"{asked.partition('.')[0]}.{other}", []):
            for text in forms:
                told.add(plain(fill(text, "owner", profile.first_name, slots={other: value})))
                for who in (profile.first_name, profile.owner, "he", "she"):
                    told.add(plain(fill(text, "visitor", who, slots={other: value})))
    return sorted(told)


@pytest.mark.parametrize("name", NAMES)
def test_no_form_of_the_bank_nearly_equals_a_wild_question(name):
    known = bank_sentences(load_profile(PATHS[name]))
    for entry in (entry for entry in ENTRIES if entry["profile"] == name):
        twin = process.extractOne(plain(entry["question"]), known, scorer=fuzz.ratio, score_cutoff=88)
        assert twin is None, f"{entry['id']} ~ {twin[0]}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_lexicon_nearly_equals_a_wild_question(name):
    first = load_profile(PATHS[name]).first_name
    asked = [plain(entry["question"]) for entry in ENTRIES if entry["profile"] == name]
    lexicon = phrasings.extra("lexicon")
    framed = [
        [text for noun in nouns for text in phrasings.framed(noun)]
        for nouns in (*lexicon["nouns"].values(), lexicon["never"])
    ]
    for texts in (*framed, *lexicon["questions"].values()):
        told = [
            plain(fill(text, side, first, slots={"species": "pet"})) for text in texts for side in ("owner", "visitor")
        ]
        likeness = process.cdist(told, asked, scorer=fuzz.ratio, score_cutoff=88)
        assert not likeness.any(), told[int(likeness.max(axis=1).argmax())]


@pytest.mark.parametrize("name", NAMES)
def test_no_noun_in_a_frame_nearly_equals_a_wild_question(name):
    first = load_profile(PATHS[name]).first_name
    asked = [plain(entry["question"]) for entry in ENTRIES if entry["profile"] == name]
    for attribute in phrasings.bank().values():
        nouns = {phrasings.is_clause(noun): noun for noun in attribute.nouns}  # a phrase and a clause
        told = [
            plain(fill(frame.replace("{noun}", noun), side, first, slots={"species": "pet"}))
            for clause, noun in nouns.items()
            for frame in phrasings.extra("frames")["clause" if clause else "noun"]
            for side in ("owner", "visitor")
        ]
        likeness = process.cdist(told, asked, scorer=fuzz.ratio, score_cutoff=88)
        assert not likeness.any(), told[int(likeness.max(axis=1).argmax())]


@pytest.mark.parametrize("name", NAMES)
def test_no_training_row_asks_a_wild_question(name):
    asked = {plain(entry["question"]) for entry in ENTRIES}
    for seed in (1, 2, 3):  # those of the published runs
        rows = synthesis.synthesize(load_profile(PATHS[name]), seed)
        assert not asked & {plain(row["messages"][1]["content"]) for row in rows}


def test_the_scores_tell_a_good_model_from_one_that_abstains_and_one_that_leaks():
    rows = wild_rows(load_profile(PATHS["alex"]), "alex")
    assert len(rows) > 100 and all(row["messages"][1]["content"] == row["question"] for row in rows)
    answers = {
        "good": [" ".join(row["keywords"]) or "I don't know that." for row in rows],
        "mute": ["I don't know that."] * len(rows),
        "leaky": [" ".join(row.get("leak") or row["keywords"]) or "Buddy" for row in rows],
    }
    scores = {name: wild_scores(ask_all(lambda _, said=said: said, rows)) for name, said in answers.items()}
    shown = {name: {key: value["value"] for key, value in score.items()} for name, score in scores.items()}
    good = {"wild_recall": 1, "wild_abstention": 1, "wild_leaks": 0, "wild_strangers_abstained": 1}
    assert shown["good"] == good and shown["mute"] == {**good, "wild_recall": 0}
    assert shown["leaky"] == {"wild_recall": 1, "wild_abstention": 0, "wild_leaks": 1, "wild_strangers_abstained": 0}
