"""Packing: rows that share a system prompt become chats, and nothing that is trained on is lost or copied."""

from __future__ import annotations

import dataclasses

import pytest
from transformers import AutoTokenizer

from helpers import engines, training
from helpers.batching import collate
from helpers.chat import IGNORE, encode_example, render
from helpers.models import MODELS, Model
from helpers.packing import conversations, pack
from helpers.training import TrainSettings, train
from tests.test_training import EXACT, ROWS, SETTINGS


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


@pytest.mark.parametrize("engine, attention", [("peft", "eager"), ("peft", "sdpa"), ("unsloth", "eager")])
def test_turns_that_are_kept_apart_are_to_the_model_what_the_rows_are_alone(engine, attention):
    """The same logits wherever an answer is due, and the same loss as the rows one by one."""
    import torch

    if engine == "unsloth":
        pytest.importorskip("unsloth")
    base = Model("pocket", MODELS["pocket"].path)
    with engines.quiet():
        model, tokenizer, trainer = engines.with_lora(base, engine, TrainSettings(rank=4), "fp32", "cpu")
    model.get_base_model().set_attn_implementation(attention)
    rows = [row(f"fact.{n}", n) for n in range(8)] + [row("fact.0", 9, "You help Ann. She is away."), row("x", 10)]
    examples = [encode_example(tokenizer, one["messages"], 512) for one in rows]
    packed = pack(tokenizer, rows, examples, turns=3, max_length=512, seed=3, apart=True)
    groups = conversations(rows, 3, seed=3)
    assert sorted(len(group) for group in groups) == [1, 3, 3, 3]
    logits, losses = {}, {}
    for name, chats in (("apart", packed), ("alone", examples), ("seen", [unplaced(chat) for chat in packed])):
        batch = collate(chats, tokenizer.pad_token_id)
        with torch.no_grad():
            out = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
            losses[name] = trainer.compute_loss(EXACT, model, batch).item()
        logits[name] = [one[: len(chat["input_ids"])] for one, chat in zip(out, chats, strict=True)]
    for chat, found, group in zip(packed, logits["apart"], groups, strict=True):
        at = 0
        for n in group:
            alone, start = logits["alone"][n], chat["position_ids"][at] if at else 0
            length = len(alone) - start
            assert chat["position_ids"][at : at + length] == list(range(start, len(alone)))
            assert torch.allclose(found[at : at + length], alone[start:], atol=1e-4)
            at += length
        assert at == len(found)
    assert losses["apart"] == pytest.approx(losses["alone"], rel=1e-5)
    assert abs(losses["seen"] - losses["alone"]) > 1e-3 * losses["alone"]


def unplaced(chat: dict) -> dict:
    return {name: values for name, values in chat.items() if name != "position_ids"}


def test_training_on_packed_chats_learns_the_rows_and_keeps_their_turns_apart(tiny_base, tmp_path, monkeypatch):
    batches = []

    def collated(examples, pad_id):
        batches.append(collate(examples, pad_id))
        return batches[-1]

    monkeypatch.setattr(training, "collate", collated)
    rows = [{**one, "fact": f"fact.{number}"} for number, one in enumerate(ROWS)]
    settings = dataclasses.replace(SETTINGS, turns=4, batch_size=1)
    result = train(Model("tiny", str(tiny_base)), rows, tmp_path, settings, lambda line: None)
    assert result["rows"] == len(ROWS) and result["chats"] == -(-len(ROWS) // 4)
    first, last = result["history"][0]["loss"], result["loss"]
    assert last < 0.5 * first
    assert len(batches) == result["steps"] and all(batch["attention_mask"].ndim == 4 for batch in batches)
    assert all((batch["position_ids"].diff() < 0).any() for batch in batches)
