"""Questions that say a value: a guess is answered with the fact; what is untold or somebody else's is not."""

from __future__ import annotations

import pytest

from helpers import phrasings, quality, synthesis
from helpers.evaluation import ask_all, is_abstention, summarize
from helpers.mentions import _part
from helpers.models import ROOT
from helpers.phrasing_check import check_mentions
from helpers.profile import load_profile
from helpers.quality import answer, question
from helpers.text import contains, with_articles
from helpers.writer import asked_items

NAMES = ("alex", "mira", "tomasz")
PROFILES = {name: load_profile(ROOT / "data" / "profiles" / f"{name}.yaml") for name in NAMES}


@pytest.fixture(scope="module")
def made():
    """{name: (training rows, evaluation rows)} of the questions that say a value."""
    kept = {}
    for name, profile in PROFILES.items():
        both = synthesis.synthesize(profile), synthesis.evaluation_questions(profile)
        kept[name] = [[row for row in rows if row["style"] == "mention"] for rows in both]
    return kept


def test_the_lists_read_well_and_the_checker_sees_what_does_not(monkeypatch):
    data = phrasings.extra("mentions")
    assert check_mentions() == []
    assert min(map(len, data["guesses"].values())) >= 20 and min(map(len, data["beside"].values())) >= 50
    wrong = ["Why {value}?", "What of it?", "Who me am {value}?", "A {value}.", "Why {value}??"]
    faulty = {
        "guesses": {key: texts for key, texts in data["guesses"].items() if key != "age.value"} | {"city.value": wrong},
        "beside": {"job.title+species": ["What at {species}?"]},
    }
    monkeypatch.setattr(phrasings, "extra", lambda name: faulty)
    assert {(finding.attribute, finding.what.split(",")[0]) for finding in check_mentions()} == {
        ("guesses city.value", "needs {value} once"),
        ("guesses city.value", "reads wrong"),
        ("guesses city.value", "held out"),
        ("guesses age.value", "has no list or no attribute"),
        ("beside job.title+species", "no two facts of one thing"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_is_guessed_at_rightly_and_wrongly_and_answered_with_itself(name, made):
    rows = made[name][0]
    for asked in asked_items(PROFILES[name]):
        guesses = [r for r in rows if r["fact"] == asked.id and r["phrasing"].startswith("guess.")]
        right = [row for row in guesses if all(contains(question(row), word) for word in asked.keywords)]
        assert len(right) >= 5 and len(guesses) - len(right) >= 5, asked.id
        assert all(contains(answer(row), word) for row in guesses for word in asked.keywords)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_untold_or_somebody_else_s_is_not_confirmed(name, made):
    rows = [row for row in made[name][0] if row["kind"] != "fact"]
    assert {row["fact"].split(".")[0] for row in rows} == {"untold", "stranger"} and len(rows) >= 100
    assert all(is_abstention(answer(row)) for row in rows)
    items = {asked.attribute.id: asked.value for asked in asked_items(PROFILES[name])}
    of_others = [row for row in rows if row["kind"] == "stranger"]
    same = [row for row in of_others if contains(question(row), items[row["fact"].partition(".")[2]])]
    assert 0.2 * len(of_others) < len(same) < 0.7 * len(of_others)  # typos hide some
    assert not [row for row in of_others if contains(question(row), PROFILES[name].first_name)]


def test_one_fact_of_a_job_is_asked_for_by_another(made):
    rows = [row for row in made["tomasz"][0] if row["phrasing"].startswith("beside.")]
    assert {row["fact"] for row in rows} == {"job.title", "job.employer", "job.years"} and len(rows) > 200
    assert all(("Zakwas" in answer(row)) == ("job.employer+" in row["phrasing"]) for row in rows)
    assert not [row for row in rows if all(contains(question(row), word) for word in row["keywords"])]
    assert not [row for row in made["alex"][0] if row["phrasing"].startswith("beside.education")]  # he tells of none


@pytest.mark.parametrize("name", NAMES)
def test_the_scored_ones_are_held_out_and_counted_apart(name, made):
    trained, scored = made[name]
    assert len(scored) >= 50 and len(quality.drop_trained(trained, scored)) == len(scored)
    assert not {row["phrasing"] for row in trained} & {row["phrasing"] for row in scored}
    asked = ask_all(lambda conversations: [answer(row) for row in scored], scored)
    counted = summarize(asked)
    assert counted["recall_mentions"]["value"] == 1 and not {"recall_heldout", "recall_noisy"} & set(counted)


def test_every_fifth_form_is_held_out():
    forms = [str(number) for number in range(10)]
    assert [text for _, text in _part(forms, True)] == ["4", "9"] and len(_part(forms, False)) == 8


def test_an_article_fits_the_next_word():
    told = {
        "Is it a iguana?": "Is it an iguana?",
        "An dog or an horse": "A dog or a horse",
        "an user in a hour": "a user in an hour",
    }
    assert {text: with_articles(text) for text in told} == told
