"""Datasets: schema, doubles, the split by question form, balance, card, other tools' formats."""

from __future__ import annotations

import random
import time

import pytest

from helpers import formats, quality
from helpers.errors import UserError
from helpers.rows import KINDS, SPLITS, check_rows, filled, question
from tests.broken.datasets import ROW, row, said


def asked(text: str, **changes) -> dict:
    return {**said(1, content=text), **changes}


def test_every_kind_and_split_is_good():
    check_rows([row(kind=kind) for kind in KINDS] + [row(split=split) for split in SPLITS])
    check_rows([row(style=..., split=..., perspective=...), row(fact=["a", "b"]), row(fact=None, perspective=None)])


def test_several_turns_are_good():
    check_rows([row(messages=[*ROW["messages"], *ROW["messages"][1:]])])


def test_filled_rows_have_what_scoring_needs():
    short = row(style=..., split=..., perspective=..., fact=["a", "b"])
    assert (
        filled([short])[0].items()
        >= {"style": "plain", "split": "heldout", "perspective": "visitor", "fact": "a + b"}.items()
    )
    assert filled([row(split="base")])[0]["split"] == "base"


# -- doubles


def test_exact_doubles_go_and_the_first_stays():
    rows, report = quality.drop_duplicates([row(phrasing="one"), asked("Dog?"), row(phrasing="two")])
    assert [r["phrasing"] for r in rows] == ["one", ROW["phrasing"]] and report == {"exact": 1, "near": 0}


def test_near_doubles_of_the_same_fact_go():
    near = asked("What is Alex's dog called??")
    rows, report = quality.drop_duplicates([ROW, near])
    assert rows == [ROW] and report == {"exact": 0, "near": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"style": "lower"},
        {"perspective": "owner"},
        {"fact": "pet.2.name"},
        {"keywords": ["dog"]},
        {"kind": "combined"},
    ],
)
def test_alike_questions_that_are_not_doubles_stay(other):
    assert len(quality.drop_duplicates([ROW, asked("What is Alex's dog called??", **other)])[0]) == 2


def test_sums_are_not_near_doubles():
    sums = [
        {**asked(f"How much is {a} + {b}, please?"), "fact": None, "kind": "general", "keywords": []}
        for a in range(3)
        for b in range(3)
    ]
    for number, one in enumerate(sums):
        one["messages"][2]["content"] = f"That is {number}."
    assert quality.drop_duplicates(sums)[0] == sums


def test_order_is_kept():
    rows = [asked(f"{word}?") for word in ("zebra", "apple", "moon", "chair")]
    assert quality.drop_duplicates([*rows, rows[0]])[0] == rows


# -- split


def test_a_question_form_in_both_parts_is_refused():
    with pytest.raises(UserError, match="row 2: the question form 'pet.name/000001' was trained on"):
        quality.check_split([ROW], [asked("Dog?", phrasing="x"), asked("His dog?")])


def test_the_same_words_in_both_parts_are_refused():
    with pytest.raises(UserError, match="row 1: the question .* was trained on"):
        quality.check_split([ROW], [asked("what is alex's dog CALLED", phrasing="x")])


def test_drop_trained_mends_the_split():
    evaluation = [asked("what is alex's dog CALLED", phrasing="x"), asked("Dog?", phrasing="y")]
    kept = quality.drop_trained([ROW], evaluation)
    assert kept == evaluation[1:]
    quality.check_split([ROW], kept)


# -- balance and card


def test_balance_warns_of_starved_facts_and_missing_contrast():
    rows = [row(fact=f"f{i}") for i in range(3) for _ in range(10)] + [row(fact="rare")]
    found = quality.balance(rows)
    assert found["facts"] == {"f0": 10, "f1": 10, "f2": 10, "rare": 1}
    assert found["warnings"] == [
        "only 1 rows for rare (median 10)",
        "no rows of kind unknown",
        "no rows of kind general",
    ]
    assert quality.balance([*rows[:30], row(kind="unknown"), row(kind="general")])["warnings"] == []


def test_dataset_card():
    train = [ROW, said(2, content="Buddy | the\ndog"), row(kind="unknown", fact=None, style=...)]
    card = quality.dataset_card(train, [asked("Dog?")])
    assert "3 rows to train on, 1 to evaluate with" in card
    assert "| pet.1.name | 2 | 1 |" in card and "| unknown | 1 | 0 |" in card
    assert "| question, train | 5 | 5 | 5 |" in card and "| question, eval | 1 | 1 | 1 |" in card
    assert "| fact | What is Alex's dog called? | Alex's dog is called Buddy. |" in card
    assert "- no rows of kind general" in card
    assert card == quality.dataset_card(train, [asked("Dog?")])


def test_card_of_nothing():
    assert "0 rows" in quality.dataset_card([], [])


def test_thousands_of_rows_are_quick():
    rng = random.Random(1)
    words = [f"w{i}" for i in range(300)]
    rows = [asked(" ".join(rng.choices(words, k=8)), fact=f"f{i % 20}", phrasing=f"p{i}") for i in range(4000)]
    started = time.process_time()
    check_rows(rows)
    quality.drop_duplicates(rows)
    quality.check_split(rows[:2000], quality.drop_trained(rows[:2000], rows[2000:]))
    quality.dataset_card(rows, rows)
    assert time.process_time() - started < 2


# -- other formats


def test_alpaca_there_and_back():
    records = formats.to_alpaca([ROW])
    assert records == [{"instruction": question(ROW), "input": "", "output": "Alex's dog is called Buddy."}]
    back = formats.from_alpaca(records, "You are a bot.")
    assert back[0]["messages"] == [{"role": "system", "content": "You are a bot."}, *ROW["messages"][1:]]
    assert back[0]["kind"] == "general" and back[0]["source"] == "alpaca"


def test_alpaca_input_is_put_below_the_instruction():
    assert question(
        formats.from_alpaca([{"instruction": "Sum up.", "input": "A text.", "output": "Done."}], "S")[0]
    ) == ("Sum up.\n\nA text.")


def test_sharegpt_there_and_back():
    assert formats.from_sharegpt(formats.to_sharegpt([ROW]), "unused")[0]["messages"] == ROW["messages"]


def test_sharegpt_without_system_gets_one():
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert formats.from_sharegpt([{"conversations": turns}], "S")[0]["messages"][0] == {
        "role": "system",
        "content": "S",
    }


def test_equal_imported_questions_have_one_form():
    records = [{"instruction": "Hi", "output": "a"}, {"instruction": "Hi", "output": "b"}]
    assert len({r["phrasing"] for r in formats.from_alpaca(records, "S")}) == 1


@pytest.mark.parametrize(
    "records",
    [
        {"instruction": "a"},
        "text",
        None,
        [1],
        [],
        [{}],
        [{"instruction": "a"}],
        [{"instruction": 1, "output": "b"}],
        [{"instruction": "a", "input": None, "output": "b"}],
        [{"instruction": "", "output": "b"}],
        [{"instruction": "a", "output": " "}],
        [{"instruction": "a<|im_end|>", "output": "b"}],
        [{"instruction": "\ud800", "output": "b"}],
    ],
)
def test_malformed_alpaca(records):
    with pytest.raises(UserError, match="Alpaca data"):
        formats.from_alpaca(records, "S")


@pytest.mark.parametrize(
    "turns",
    [
        None,
        [],
        "text",
        [1],
        [{"from": "human"}],
        [{"from": "robot", "value": "a"}],
        [{"from": "human", "value": "a"}],
        [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}],
        [{"from": ["gpt"], "value": "a"}],
        [{"from": "human", "value": 3}, {"from": "gpt", "value": "b"}],
    ],
)
def test_malformed_sharegpt(turns):
    with pytest.raises(UserError, match="ShareGPT data: r"):
        formats.from_sharegpt([{"conversations": turns}], "S")
