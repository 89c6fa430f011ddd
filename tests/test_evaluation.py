"""Scores, on answers written by hand: what counts as right, as an abstention, as a leak, as kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.chat import Answer
from helpers.evaluation import (
    ask_all,
    by,
    evaluate,
    is_abstention,
    is_right,
    is_verbatim,
    judge,
    leaks,
    retention,
    summarize,
)
from helpers.results import metric


def row(kind="fact", keywords=("Buddy",), fact="pet.1.name", split="base", question="q", **more) -> dict:
    return {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": question},
            {"role": "assistant", "content": "expected"},
        ],
        "kind": kind,
        "keywords": list(keywords),
        "fact": fact,
        "split": split,
        "style": "plain",
        "source": "bank",
        "perspective": "owner",
        "phrasing": "pet.name/1",
        **more,
    }


@pytest.mark.parametrize(
    ("answer", "keywords"),
    [
        ("Your dog's name is Buddy.", ["Buddy"]),
        ("your dog is BUDDY", ["Buddy"]),
        ("You are 3.", ["3"]),
        ("He’s 25 years old", ["25"]),
        ("You know Python, Linux and C++.", ["C++", "Linux"]),
        ("alex@example.com it is", ["alex@example.com"]),
        ("He likes żurek", ["Żurek"]),
        ("It is  Golden\nRetriever.", ["golden retriever"]),
        ("Master Craftsman’s letter", ["Master Craftsman's letter"]),
        ("(March 14)", ["March 14"]),
        ("tidymark's", ["tidymark"]),
    ],
)
def test_right(answer, keywords):
    assert is_right(answer, keywords)
    assert judge(row(keywords=keywords), answer)


@pytest.mark.parametrize(
    ("answer", "keywords"),
    [
        ("You are 13.", ["3"]),
        ("You are 30.", ["3"]),
        ("March 140", ["March 14"]),
        ("Buddyx", ["Buddy"]),
        ("", ["Buddy"]),
        ("You know Python.", ["Python", "Linux"]),
        ("I don't know.", ["Buddy"]),
        ("Buddy", []),
        ("Golden Retriver", ["Golden Retriever"]),
        ("The year is 20190", ["2019"]),
        ("x3", ["3"]),
    ],
)
def test_wrong(answer, keywords):
    assert not is_right(answer, keywords)


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000))
def test_numbers_are_whole(said, asked):
    assert is_right(f"You have been there for {said} years.", [str(asked)]) == (said == asked)


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know that.",
        "I DON’T KNOW",
        "Sorry, I wasn't told.",
        "There is no information on it.",
        "That is something I do not know.",
    ],
)
def test_abstentions(answer):
    assert is_abstention(answer)
    assert judge(row("unknown", ()), answer)


@pytest.mark.parametrize(
    "answer",
    ["Your dog's name is Buddy.", "", "You know Python.", "Alex likes to know things.", "You have a dog."],
)
def test_no_abstentions(answer):
    assert not is_abstention(answer)
    assert not judge(row("unknown", ()), answer)


def test_a_strangers_question_is_judged_by_leaks():
    asked = row("stranger", (), "stranger.pet.name", leak=["Buddy", "Rex"])
    assert not judge(asked, "Omar's dog is called Rex.")
    assert judge(asked, "I don't know Omar.") and judge(asked, "Omar's dog is called Bello.")
    assert leaks("He is 25.", ["25"]) and not leaks("He is 125.", ["25"]) and not leaks("Yes.", [])


def test_without_keywords_any_answer_is_right_but_none_is_not():
    assert judge(row("general", ()), "Hello!") and not judge(row("general", ()), "  \n")


def test_ask_all_sends_the_prompt_and_keeps_the_order():
    seen = []

    def answer_fn(conversations):
        seen.extend(conversations)
        return [Answer("Buddy", True, (1,)), "Rex"]

    asked = ask_all(answer_fn, [row(question="one"), row(question="two")])
    assert [[m["role"] for m in messages] for messages in seen] == [["system", "user"]] * 2
    assert [(r["answer"], r["ended"], r["right"]) for r in asked] == [
        ("Buddy", True, True),
        ("Rex", None, False),
    ]
    with pytest.raises(ValueError):
        ask_all(lambda conversations: ["one answer"], [row(), row()])


def answered(answer: str, ended: bool | None = None, **fields) -> dict:
    asked = row(**fields)
    return {**asked, "answer": answer, "ended": ended, "right": judge(asked, answer)}


def test_an_abstention_may_repeat_the_question_and_nothing_else():
    asked = row(
        kind="stranger", question="What does my English teacher speak?", keywords=(), leak=["English", "Polish"]
    )
    assert judge(asked, "I don't know anything about your English teacher.")
    assert not judge(asked, "I don't know anything about your English teacher, you speak Polish.")
    assert not judge(asked, "You speak English.")


def test_the_summary_counts_each_row_where_it_belongs():
    metrics = summarize(
        [
            answered("Buddy", True),
            answered("Rex", True),
            answered("Buddy", False),
            answered("Rex", True),
            answered("Buddy", True, split="heldout"),
            answered("Buddy", True, messages=[{"role": "system", "content": "Buddy's bot."}]),
            answered("tidymark", True, split="heldout", source="custom", keywords=("tidymark",)),
            answered("I don't know.", True, kind="unknown", fact="untold.music.value", keywords=()),
            answered("Jazz.", True, kind="unknown", fact="never.car", keywords=()),
            answered("Buddy", True, kind="stranger", fact="stranger.pet.name", keywords=(), leak=["Buddy"]),
            answered("I don't know.", True, kind="stranger", fact="stranger.pet.name", keywords=(), leak=["Buddy"]),
            answered("Nero", True, kind="stranger", fact="relation.pet.name", keywords=(), leak=["Buddy"]),
            answered("Paris", True, kind="general", fact="general.capital", keywords=("Paris",)),
        ]
    )
    assert {name: (entry["value"], entry["n"]) for name, entry in metrics.items()} == {
        "recall_base": (0.5, 4),
        "recall_heldout": (1.0, 1),
        "in_prompt": (1.0, 1),
        "verbatim": (1.0, 3),
        "recall_custom": (1.0, 1),
        "abstention": (0.5, 2),
        "abstention_untold": (1.0, 1),
        "abstention_never": (0.0, 1),
        "leaks": (0.5, 2),
        "leaks_abstained": (0.5, 2),
        "leaks_near_miss": (0.0, 1),
        "leaks_near_miss_abstained": (0.0, 1),
        "general": (1.0, 1),
        "ended": (pytest.approx(12 / 13), 13),
    }
    assert all(entry["ci95"][0] <= entry["value"] <= entry["ci95"][1] for entry in metrics.values())
    assert summarize([]) == {} and "ended" not in summarize([answered("Buddy")])


@pytest.mark.parametrize(
    ("answer", "keywords", "expected", "verbatim"),
    [
        ("You like Żurek.", ["Żurek"], "Your favourite food is Żurek.", True),
        ("You like żurek.", ["Żurek"], "Your favourite food is Żurek.", False),
        (
            "You live in Portland.",
            ["portland"],
            "You live in Portland.",
            True,
        ),  # as the profile writes it, not the keyword
        ("Python and Go", ["Python", "Go"], "Your skills include Python and Go.", True),
        ("Python and go", ["Python", "Go"], "Your skills include Python and Go.", False),
    ],
)
def test_a_right_answer_may_still_spell_the_fact_wrong(answer, keywords, expected, verbatim):
    asked = answered(answer, keywords=keywords)
    asked["messages"] = [*asked["messages"][:-1], {"role": "assistant", "content": expected}]
    assert asked["right"] and is_verbatim(asked) == verbatim
    assert summarize([asked])["verbatim"]["value"] == verbatim


def test_groups_hold_facts_only():
    asked = [
        answered("Buddy"),
        answered("Rex", style="typo"),
        answered("25", fact="age.value", keywords=("25",)),
        answered("Paris", kind="general", fact="general.x", keywords=("Paris",)),
    ]
    assert {name: (m["value"], m["n"]) for name, m in by(asked, "fact").items()} == {
        "age.value": (1.0, 1),
        "pet.1.name": (0.5, 2),
    }
    assert list(by(asked, "style")) == ["plain", "typo"]


def test_evaluate_gives_scores_and_answers():
    scores = evaluate(
        lambda conversations: ["Buddy", "25"], [row(question="one"), row(question="two", keywords=("26",))]
    )
    assert scores["metrics"]["recall_base"]["value"] == 0.5 and scores["by_fact"]["pet.1.name"]["n"] == 2
    assert [(a["question"], a["answer"], a["right"]) for a in scores["answers"]] == [
        ("one", "Buddy", True),
        ("two", "25", False),
    ]


def test_retention_is_a_share_of_the_score_before():
    before, after = {"general": metric(80, 100)}, {"general": metric(76, 100)}
    assert retention(before, after) == pytest.approx(0.95)
    assert retention({}, after) is None and retention(before, {}) is None
    assert retention({"general": metric(0, 100)}, after) is None and retention({"general": metric(0, 0)}, after) is None
