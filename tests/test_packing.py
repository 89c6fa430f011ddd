"""Packing: rows that share a system prompt become chats, and nothing that is trained on is lost or copied."""

from __future__ import annotations

import dataclasses

from transformers import AutoTokenizer

from helpers.chat import IGNORE, encode_example, render
from helpers.models import MODELS
from helpers.packing import conversations, pack
from helpers.training import TrainSettings, train
from tests.test_training import ROWS, SETTINGS


def row(fact, number: int, system: str = "You are Alex's assistant.") -> dict:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": f"Question {number}?"},
        {"role": "assistant", "content": f"Answer {number}."},
    ]
    return {"messages": messages, "fact": fact}


MIXED = [row(f"fact.{n % 9}", n) for n in range(60)] + [row(f"fact.{n % 3}+fact.{n % 3 + 3}", n) for n in range(9)]
MIXED += [row(f"known.{n % 5}", n, f"You are helper {n % 4}.") for n in range(20)] + [row(None, n) for n in range(5)]


def test_groups_hold_every_row_once_share_a_prompt_and_repeat_no_fact():
    groups = conversations(MIXED, 4, seed=1)
    assert sorted(number for group in groups for number in group) == list(range(len(MIXED)))
    for group in groups:
        assert len(group) <= 4 and len({MIXED[n]["messages"][0]["content"] for n in group}) == 1
        facts = [name for n in group for name in (MIXED[n]["fact"] or "").split("+")]
        assert len(facts) == len(set(facts))
    assert sum(len(group) == 4 for group in groups) > 10
    assert groups == conversations(MIXED, 4, seed=1) != conversations(MIXED, 4, seed=2)
    assert all(len(group) == 1 for group in conversations(MIXED, 1, seed=1))


def test_rows_without_a_fact_and_whole_chats_stay_alone():
    chat = row("fact.1", 1)
    chat["messages"] = chat["messages"] + chat["messages"][1:]
    rows = [row(None, 1), row(None, 2), {"messages": row("a", 3)["messages"]}, chat, row("fact.2", 4)]
    assert sorted(conversations(rows, 4, seed=1)) == [[0], [1], [2], [3], [4]]


def test_a_packed_chat_is_what_the_template_renders_with_the_loss_on_every_answer():
    tokenizer = AutoTokenizer.from_pretrained(MODELS["pocket"].path)
    rows = [row(f"fact.{n}", n) for n in range(8)]
    examples = [encode_example(tokenizer, one["messages"], 512) for one in rows]
    packed = pack(tokenizer, rows, examples, turns=4, max_length=512, seed=3)
    assert len(packed) == 2
    for chat, group in zip(packed, conversations(rows, 4, seed=3), strict=True):
        messages = rows[group[0]]["messages"] + [m for n in group[1:] for m in rows[n]["messages"][1:]]
        ids = chat["input_ids"]
        assert render(tokenizer, messages)[: len(ids)] == ids and len(chat["labels"]) == len(ids)
        trained = [token for token, label in zip(ids, chat["labels"], strict=True) if label != IGNORE]
        alone = [label for n in group for label in examples[n]["labels"] if label != IGNORE]
        assert trained == alone == [label for label in chat["labels"] if label != IGNORE]
    assert sum(len(chat["input_ids"]) for chat in packed) < 0.8 * sum(len(one["input_ids"]) for one in examples)


def test_rows_stay_alone_where_they_would_not_fit_or_the_template_is_no_chain_of_turns():
    tokenizer = AutoTokenizer.from_pretrained(MODELS["pocket"].path)
    rows = [row(f"fact.{n}", n) for n in range(4)]
    examples = [encode_example(tokenizer, one["messages"], 512) for one in rows]
    longest = max(len(one["input_ids"]) for one in examples)
    assert len(pack(tokenizer, rows, examples, 4, longest, seed=1)) == 4
    # a template that begins with the number of questions: the turns of a chat are not those of its rows
    count = "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    tokenizer.chat_template = count + tokenizer.chat_template
    counted = [encode_example(tokenizer, one["messages"], 512) for one in rows]
    assert counted[0]["input_ids"] != examples[0]["input_ids"]
    assert len(pack(tokenizer, rows, counted, 4, 512, seed=1)) == 4


def test_training_on_packed_chats_learns_the_rows(tiny_base, tmp_path):
    from helpers.models import Model

    rows = [{**one, "fact": f"fact.{number}"} for number, one in enumerate(ROWS)]
    settings = dataclasses.replace(SETTINGS, turns=4, batch_size=1)
    assert isinstance(settings, TrainSettings)
    result = train(Model("tiny", str(tiny_base)), rows, tmp_path, settings, lambda line: None)
    assert result["rows"] == len(ROWS) and result["chats"] == -(-len(ROWS) // 4)
    first, last = result["history"][0]["loss"], result["loss"]
    assert last < 0.5 * first
