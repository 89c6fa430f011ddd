"""How the embedded base is made: people, chats, tokenizer, and a training loop that can be killed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import engines, phrasings
from helpers.errors import UserError
from helpers.evaluation import is_abstention
from helpers.models import ROOT
from helpers.pretraining import average as averaging
from helpers.pretraining import corpus as corpora
from helpers.pretraining import train
from helpers.pretraining.card import model_card
from helpers.pretraining.corpus import Corpus, known_people, stranger
from helpers.pretraining.people import _LINKS, OPEN, WRITTEN, decorated, invent, pools, unheard
from helpers.pretraining.probes import blank_rows, known_rows, reading_rows, shipped_rows, untold_rows
from helpers.pretraining.tokenizer import encode_chat, train_tokenizer
from helpers.pretraining.train import PretrainSettings, pretrain, schedule
from helpers.text import contains


@pytest.fixture(scope="module")
def tokenizer():
    corpus = Corpus()
    return train_tokenizer((m["content"] for n in range(200) for m in corpus.chat(n)), 600)


# -- people and chats


def test_the_known_people_are_always_the_same_and_have_names_of_their_own():
    people = known_people()
    assert len({person.first for person in people}) == len(people) == corpora.KNOWN_PEOPLE
    assert known_people() == people
    assert all(person.full.startswith(person.first + " ") and "name.value" in person.facts for person in people)
    told = sorted(len(person.facts) for person in people)
    assert told[10] < 0.5 * len(phrasings.bank()) and told[-10] > 0.85 * len(
        phrasings.bank()
    )  # some tell much, some little
    rng = random.Random(0)
    assert not {stranger(rng).first for _ in range(2000)} & {person.first for person in people}


def test_a_person_has_every_attribute_of_the_bank():
    rng = random.Random(0)
    for _ in range(300):
        person = invent(rng)
        assert set(person.facts) == set(phrasings.bank())
        assert all(value == value.strip() and value and "  " not in value for value in person.facts.values())


def test_other_alphabets_write_every_byte_that_follows_another():
    rng, seen = random.Random(0), set()
    for _ in range(2000):
        plain, person = invent(random.Random(7)), decorated(invent(random.Random(7)), rng)
        changed = [key for key in plain.facts if plain.facts[key] != person.facts[key]]
        assert 1 <= len(changed) <= 4 and set(changed) <= set(WRITTEN)
        assert all(person.facts[key].strip() for key in changed)
        seen |= set("".join(person.facts[key] for key in changed).encode())
    assert set(range(0x80, 0xC0)) <= seen and len([byte for byte in seen if byte >= 0xC0]) >= 15


def test_values_that_stand_in_no_pool_are_put_together_from_two_that_do():
    rng, new = random.Random(0), []
    known = {word for pool in OPEN.values() for value in pools()[pool] for word in value.split(" ")} | {*_LINKS}
    for _ in range(500):
        plain, person = invent(random.Random(7)), unheard(invent(random.Random(7)), rng)
        changed = [key for key in plain.facts if plain.facts[key] != person.facts[key]]
        assert 1 <= len(changed) <= 4 and set(changed) <= set(OPEN)
        for key in changed:
            for value in person.facts[key].split(" and "):
                assert len(value.split(" ")) < 16 and value and value == value.strip() and "  " not in value
                new.append(value not in pools()[OPEN[key]])
                assert sum(word not in known for word in value.split(" ")) <= 1
    assert sum(new) > 0.9 * len(new)


def test_a_chat_depends_on_seed_and_number_only():
    one, two = Corpus(1), Corpus(1)
    later = [two.chat(n) for n in reversed(range(100))][::-1]
    assert [one.chat(n) for n in range(100)] == later
    assert [Corpus(2).chat(n) for n in range(100)] != later


def test_chats_alternate_and_leave_nothing_unfilled():
    corpus = Corpus()
    for number in range(1500):
        chat = corpus.chat(number)
        assert [m["role"] for m in chat] == ["system"] + ["user", "assistant"] * (len(chat) // 2) and len(chat) >= 3
        for message in chat:
            text = message["content"]
            assert text.strip() and not re.search(r"\{[a-z]+\}|\[[^\]]*\|", text), text


def test_a_system_prompt_always_says_whose_assistant_it_is():
    rng = random.Random(0)
    for person in known_people():
        for _ in range(20):
            system, assistant = corpora.system_prompt(person, rng)
            assert person.first in system and assistant in system and "{" not in system


def test_a_namesake_is_never_the_owner():
    rng, person = random.Random(0), known_people()[0]
    last = person.full.removeprefix(person.first).strip()
    asked = [corpora.stranger_turn(person, rng, ("city.value",), named) for named in (True, False) for _ in range(1500)]
    assert not any(person.full.lower() in text.lower() for turn in asked for text in turn)
    answers = [answer for _, answer in asked]
    assert sum(person.first in answer for answer in answers[:1500] if "'s" not in answer) > 20
    assert sum(last in answer for answer in answers[1500:]) > 20
    # Where only the first name was told, the first name alone means the owner: no stranger may have it.
    assert not any(f" {person.first} " in answer for answer in answers[1500:])


def test_a_pet_is_asked_for_by_its_name_where_that_is_known_and_by_no_other():
    rng, age = random.Random(3), phrasings.bank()["pet.age"]
    answers = {"named": [], "other": [], "unnamed": []}
    for _ in range(1500):
        person = stranger(rng)
        person.facts["pet.name"] = "Zikkuro"  # no word of a form, as Pumpkin is
        asked, said = corpora.fact_turn(person, age, rng, True, sorted(person.facts))
        kind = "named" if contains(asked, person.facts["pet.name"]) else "other" if is_abstention(said) else "unnamed"
        answers[kind].append(contains(said, person.facts["pet.age"]))
        asked, _ = corpora.fact_turn(person, age, rng, True, ["pet.age"])
        assert not contains(asked, person.facts["pet.name"])
    assert len(answers["named"]) >= 40 and all(answers["named"] + answers["unnamed"])
    assert len(answers["other"]) >= 5 and not any(answers["other"])


def test_no_held_out_form_in_35000_chats(monkeypatch):
    used: set[str] = set()

    def fill(text, *args, **kwargs):
        used.add(text)
        return phrasings.fill(text, *args, **kwargs)

    monkeypatch.setattr(corpora, "fill", fill)
    corpus = Corpus()
    for number in range(35_000):
        corpus.chat(number)
    forms = [form for attribute in phrasings.bank().values() for form in attribute.forms]
    seen = {form.text for form in forms if form.split != "heldout"}
    held_out = {form.text for form in forms if form.split == "heldout"} - seen
    held_out |= {
        q
        for e in phrasings.extra("unknown")["attributes"]
        if phrasings.unknown_split(e["key"]) == "heldout"
        for q in e["questions"]
    }
    assert len(held_out) > 400 and not used & held_out
    assert len(used & seen) > 0.9 * len(seen)  # so the check above has looked at real chats


def test_a_short_run_was_the_start_of_a_long_one_on_either_kind_of_processor():
    folder = ROOT / "data" / "results" / "pretraining"
    short, fp32 = (
        {e["tokens"]: e["loss"] for e in json.loads((folder / "start" / f"{name}.json").read_text())["history"]}
        for name in ("2M", "2M-fp32")
    )
    long = [float(loss) for loss in re.findall(r"loss ([\d.]+)", (folder / "start" / "22M.txt").read_text())]
    table = re.findall(r"\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", (folder / "README.md").read_text())
    rows = [(int(tokens.replace(",", "")), *map(float, losses)) for tokens, *losses in table]
    assert rows == [(n, loss, other, fp32[n]) for (n, loss), other in zip(short.items(), long, strict=True)][:3]
    assert all(abs(loss / losses[0] - 1) < 0.001 for _, *losses in rows for loss in losses)
    # From 60 % of its tokens on the short run's rate falls, and its loss falls faster than the long one's.
    assert list(short.values())[3] < long[3]


def test_fewer_forms_are_a_part_of_all_and_change_nothing_else(monkeypatch):
    used: dict[int, set[str]] = {}
    for forms in (5, 10):
        used[forms] = seen = set()
        monkeypatch.setattr(
            corpora,
            "fill",
            lambda text, *args, seen=seen, **more: seen.add(text) or phrasings.fill(text, *args, **more),
        )
        corpus = Corpus(1, forms)
        for number in range(1500):
            corpus.chat(number)
    for attribute in phrasings.bank().values():
        framed = {text for noun in attribute.nouns for text in phrasings.framed(noun)}
        asked = {form.text for split in corpora.SEEN for form in attribute.questions(split)} - framed
        few, more = (corpora.few_forms(attribute, forms) for forms in (5, 10))
        assert asked & used[5] == asked & {form.text for form in few.forms}
        assert asked & used[10] == asked & {form.text for form in more.forms}
        assert set(few.forms) < set(more.forms) and len(more.forms) - len(few.forms) == 5
        assert [f for f in few.forms if f.reversed] == [f for f in attribute.forms if f.reversed]


def test_what_the_base_is_asked_can_be_answered():
    for rows, split in (
        (known_rows(200, "base", "eval"), "base"),
        (reading_rows(100, "heldout", "eval"), "heldout"),
        (blank_rows(100, "base", "eval"), "base"),
    ):
        for row in rows:
            assert row["split"] == split
            assert all(contains(row["messages"][-1]["content"], word) for word in row["keywords"])
            assert row["kind"] != "reading" or all(contains(row["messages"][0]["content"], w) for w in row["keywords"])
    held_out = {e["key"] for e in phrasings.extra("unknown")["attributes"]} - {
        e["key"] for e in corpora.unknown_entries()
    }
    for row in untold_rows(100, "eval"):
        assert row["fact"].removeprefix("never.") in held_out and not row["keywords"]
        assert len(row["messages"][0]["content"].splitlines()) in (7, 8) and is_abstention(
            row["messages"][2]["content"]
        )
    shipped = shipped_rows()
    assert shipped == shipped_rows() and {row["part"] for row in shipped} == {"train", "eval"}
    together = Counter(row["messages"][0]["content"] for row in shipped if row["part"] == "train")
    assert len(together) <= 250 and min(together.values()) >= 4  # four questions share a prompt and can be packed
    parts = [{row["phrasing"] for row in shipped if row["part"] == part} for part in ("train", "eval")]
    assert not parts[0] & parts[1]


# -- tokenizer


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    "text",
    ["Zoë's café 🙂 in 東京", "👩‍👩‍👧 e\u0301 \u00e9", "  two  spaces \n\n", "1234567", "don 't , ok ."],
)
def test_emoji_accents_and_spaces_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False)  # nothing added by itself


def test_the_tokenizer_is_what_the_models_expect(tokenizer):
    assert len(tokenizer) == 600 and tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert len(tokenizer.encode("2025")) == 4  # digits stand alone
    assert len(tokenizer.encode("What is Alex's dog called?")) < 20


def test_chats_are_encoded_as_the_template_renders_them(tokenizer):
    corpus = Corpus(3)
    chats = [corpus.chat(number) for number in range(150)]
    chats.append(
        [
            {"role": "system", "content": " s\n"},
            {"role": "user", "content": "\n?"},
            {"role": "assistant", "content": "\n a 🙂 \n"},
        ]
    )
    for chat in chats:
        ids, answer = encode_chat(tokenizer, chat)
        assert ids == tokenizer.apply_chat_template(chat, return_dict=False)
        said = tokenizer.decode([token for token, spoken in zip(ids, answer, strict=True) if spoken])
        assert said == "".join(m["content"] + "<|im_end|>" for m in chat if m["role"] == "assistant")


# -- training

TINY = PretrainSettings(
    tokens=70_000,
    warmup_tokens=2_000,
    vocab_size=600,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=2,
    kv_heads=1,
    batch_tokens=512,
    tokenizer_chats=100,
    checkpoint_steps=52,
    learning_rate=1e-2,
    compile=False,
)
CHILD = """
import json, os, signal, sys
from pathlib import Path
from helpers.pretraining import train
import torch
torch.set_num_threads(1)
train.POOL = 24
lines = []
def log(line):
    lines.append(line)
    print(line, flush=True)
    if sys.argv[3] == "kill" and len(lines) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
train.pretrain(Path(sys.argv[1]), train.PretrainSettings(**json.loads(sys.argv[2])), log)
"""


def child(folder, mode: str = "run") -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(folder), json.dumps(dataclasses.asdict(TINY)), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_training_lowers_the_loss_and_survives_kill_9(tmp_path):
    whole, cut = child(tmp_path / "whole"), child(tmp_path / "cut", "kill")
    cut.communicate()
    assert cut.returncode == -9
    assert not (tmp_path / "cut" / "model").exists() and (tmp_path / "cut" / "checkpoint.pt").is_file()
    again = child(tmp_path / "cut")
    assert again.communicate()[0].startswith("going on at ") and again.returncode == 0
    whole.communicate()
    assert whole.returncode == 0
    log = json.loads((tmp_path / "whole" / "losses.json").read_text())
    losses = [entry["loss"] for entry in log["history"]]
    assert len(losses) >= 2 and losses[-1] < 0.95 * losses[0] and log["tokens"] >= TINY.tokens
    resumed = json.loads((tmp_path / "cut" / "losses.json").read_text())
    assert [(e["tokens"], e["loss"]) for e in resumed["history"]] == [(e["tokens"], e["loss"]) for e in log["history"]]
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "cut" / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()

    with pytest.raises(UserError, match="other settings .learning_rate 0.01 instead of 0.1") as caught:
        pretrain(tmp_path / "cut", dataclasses.replace(TINY, learning_rate=0.1))
    assert "\n" not in str(caught.value)

    import torch

    from helpers.models import load_model, load_tokenizer

    first = tmp_path / "whole" / "model"
    onward = dataclasses.replace(TINY, init=str(first), tokens=26_000)
    further = pretrain(tmp_path / "on", onward, log=lambda line: None)
    assert further["history"][0]["loss"] < 1.05 * losses[-1]  # it goes on where the first one ended
    assert (tmp_path / "on/model/tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    deep = train.earlier_base(dataclasses.replace(onward, layers=TINY.layers + 2))[1]
    text = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        assert torch.equal(deep(text).logits, load_model(str(first)).float()(text).logits)  # nothing has changed yet
    deep(input_ids=text, labels=text).loss.backward()
    assert len(deep.model.layers) == TINY.layers + 2
    assert all(layer.self_attn.o_proj.weight.grad.any() for layer in deep.model.layers)  # yet every layer learns
    for folder, wrong, message in (
        ("flat", dataclasses.replace(onward, layers=TINY.layers - 1), "another shape"),
        ("wide", dataclasses.replace(onward, hidden_size=128), "another shape"),
        ("none", dataclasses.replace(onward, init=str(tmp_path)), "no base to go on from"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain(tmp_path / folder, wrong)
        assert not (tmp_path / folder).exists()

    network = load_model(str(tmp_path / "cut" / "model"))
    assert network.config.tie_word_embeddings and str(network.dtype) == "torch.bfloat16"
    assert len(load_tokenizer(str(tmp_path / "cut" / "model"))) == 600


def test_processors_without_bf16_train_in_fp32(tmp_path, monkeypatch):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                seen.add(made.dtype)
            return made

    monkeypatch.setattr(train, "POOL", 24)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        monkeypatch.setattr(engines, "machine_precision", lambda precision=precision: ("cpu", precision))
        seen.clear()
        with Watch():
            log = pretrain(tmp_path / precision, dataclasses.replace(TINY, tokens=1_000))
        assert seen == {dtype} and log["precision"] == precision


def test_muon_takes_the_same_step_in_fp32():
    import torch

    torch.manual_seed(0)
    start, grad, after = torch.randn(40, 24), torch.randn(40, 24), []
    for context in (train.keep_fp32(), nullcontext()):
        matrix = torch.nn.Parameter(start.clone())
        matrix.grad = grad.clone()
        with context:
            torch.optim.Muon([matrix], lr=0.1, weight_decay=0.0).step()
        assert torch.equal(matrix.grad, grad)
        after.append(matrix.detach() - start)
    assert 0 < (after[0] - after[1]).norm() < 0.02 * after[0].norm()


def test_batches_hold_every_chat_once_with_answers_only(tokenizer, monkeypatch):
    monkeypatch.setattr(train, "POOL", 64)
    corpus, made, batches = Corpus(), 0, train.batches(tokenizer, Corpus(), 2048)
    for inputs, labels, next_chat in batches:
        assert inputs.shape == labels.shape and inputs.shape[1] in train.BUCKETS and inputs.numel() <= 2048
        asked = labels != -100
        assert asked.any(1).all() and (inputs[asked] == labels[asked]).all()
        made += len(inputs)
        if next_chat is not None:
            break
    assert next_chat == 64 and made > 50
    again = next(train.batches(tokenizer, corpus, 2048, 64))
    assert (next(batches)[0] == again[0]).all()  # going on at the noted chat gives the same batch


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    plan = PretrainSettings(tokens=1000, warmup_tokens=20, decay=0.4)
    rates = [schedule(tokens, plan) for tokens in range(1001)]
    assert rates[0] == 0 and rates[10] == 0.5 and rates[20] == 1 == rates[600]
    assert rates[800] == pytest.approx(0.5) and rates[1000] == 0
    assert max(rates) == 1 and min(rates) == 0


# -- the mean of several bases


def test_the_mean_of_bases_is_a_base_and_says_of_which(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file, save_file

    from helpers.models import load_model, load_tokenizer

    monkeypatch.setattr(averaging, "score_and_describe", lambda folder, told, history, *_: (folder, told, history))
    shipped, told = ROOT / "data" / "base", json.loads((ROOT / "data" / "base" / "results.json").read_text())
    folders = [tmp_path / name for name in "abc"]
    weights = load_file(shipped / "model.safetensors")
    for shift, folder in enumerate(folders):
        shutil.copytree(shipped, folder)
        moved = {name: (tensor.float() + shift).bfloat16() for name, tensor in weights.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    made, settings_, history = averaging.average(folders, tmp_path / "out", lambda line: None)
    mean = load_file(made / "model.safetensors")
    for name, tensor in weights.items():
        expected = sum((tensor.float() + shift).bfloat16().float() for shift in range(3)) / 3
        assert mean[name].dtype == torch.bfloat16 and torch.allclose(mean[name].float(), expected, rtol=2**-7)
    assert load_model(str(made)).num_parameters() == 7_344_384 and len(load_tokenizer(str(made))) == 4096
    assert history == told["history"] and len(settings_["mean_of"]) == len(set(settings_["mean_of"])) == 3
    card = model_card({**told, "settings": settings_})
    assert "the mean of those of this run and of 2 bases before it" in card
    assert all(digest[:16] in card for digest in settings_["mean_of"])


def test_bases_that_have_no_mean_are_refused_before_anything_is_written(tmp_path):
    shipped, other = ROOT / "data" / "base", tmp_path / "other"
    shutil.copytree(shipped, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    for folders, message in (
        ([shipped], "Name two or more"),
        ([other, shipped], "its config.json differs"),
        ([tmp_path, shipped], "no model.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            averaging.average(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
