"""Merge, conversion, quantisation and the gate."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers import export
from helpers.errors import UserError
from helpers.export import QUANTS, adapter_to_gguf, export_gguf, merge, quantize, to_gguf
from helpers.gate import GateError, verify
from helpers.local_llm import LocalLLM
from helpers.models import load_model, load_tokenizer, resolve
from helpers.pretokenizer import pretokenizer_name
from tests.tiny import ANSWERS, chat, make_base

PROBES = [chat(question) for question in ANSWERS]
QUESTION = next(iter(ANSWERS))
LEARNT = "Alex's dog is called Northwind."


@pytest.fixture(scope="module")
def base(tiny_base):
    return resolve(str(tiny_base))


def save_adapter(base, folder, **settings):
    """Save an untrained adapter with the given LoRA settings."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM", **settings})
    model = get_peft_model(load_model(base.path), config)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter that has learnt another answer to QUESTION."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = load_tokenizer(base.path)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=list(base.lora_targets), task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base.path, dtype=torch.float32), config)
    prompt = tokenizer.apply_chat_template(chat(QUESTION), add_generation_prompt=True, tokenize=True, return_dict=False)
    answer = tokenizer(LEARNT + "<|im_end|>", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(80):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def merged(base, adapter, tmp_path_factory):
    return merge(base, adapter, tmp_path_factory.mktemp("merged") / "model")


# -- merge


def test_the_merged_model_answers_as_base_plus_adapter(base, adapter, merged):
    import torch
    from peft import PeftModel

    ids = torch.tensor([[1, 5, 9, 30, 31]])
    want = PeftModel.from_pretrained(load_model(base.path, dtype=torch.float32), str(adapter))(ids).logits
    assert (load_model(str(merged), dtype=torch.float32)(ids).logits - want).abs().max() < 0.3
    assert load_model(str(merged)).dtype == torch.bfloat16


def test_tied_embeddings_lost_on_merge(merged):
    from safetensors import safe_open

    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is True
    with safe_open(merged / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()


def test_template_and_end_tokens_survive_the_merge(base, merged):
    old, new = load_tokenizer(base.path), load_tokenizer(str(merged))
    assert new.chat_template == old.chat_template and new.get_vocab() == old.get_vocab()
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == old.eos_token_id


def test_merging_into_a_4_bit_base_is_refused(base, adapter, tmp_path):
    folder = tmp_path / "four_bit"
    shutil.copytree(base.path, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="16-bit"):
        merge(resolve(str(folder)), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_on_tied_embeddings_is_refused(base, tmp_path):
    save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    with pytest.raises(UserError, match="one matrix"):
        merge(base, tmp_path / "adapter", tmp_path / "out")


def test_a_folder_without_adapter_is_a_user_error(base, tmp_path):
    with pytest.raises(UserError, match="no adapter"):
        merge(base, tmp_path, tmp_path / "out")


# -- conversion


def write_pretokenizer(folder, pre, normalizer=None):
    spec = {"model": {"type": "BPE"}, "pre_tokenizer": pre, "normalizer": normalizer}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"


def split(digits: str) -> dict:
    pattern = {"Regex": WORDS % digits + r"\s+(?!\S)|\s+"}
    steps = [{"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}]
    return {"type": "Sequence", "pretokenizers": [*steps, BYTES | {"use_regex": False}]}


@pytest.mark.parametrize(
    ("pre", "name"),
    [
        (BYTES, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}, "smollm"),
        (split("{1,3}"), "llama-bpe"),
        (split(""), "qwen2"),
        (split("{1,2}"), None),
        (BYTES | {"add_prefix_space": True}, None),
        ({"type": "Sequence", "pretokenizers": [DIGITS | {"individual_digits": False}, BYTES]}, None),
        ({"type": "Whitespace"}, None),
        (None, None),
    ],
)
def test_the_pre_tokenizer_is_told_by_its_structure(tmp_path, pre, name):
    assert pretokenizer_name(write_pretokenizer(tmp_path, pre)) == name


def test_a_normaliser_that_llama_cpp_would_not_apply_makes_it_unknown(tmp_path):
    write_pretokenizer(tmp_path, BYTES, {"type": "Lowercase"})
    assert pretokenizer_name(tmp_path) is None


def test_unknown_pre_tokenizer_is_refused(tiny_base, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(tiny_base, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, BYTES]}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="way of splitting text"):
        to_gguf(folder, tmp_path / "model-f16.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_adapter_as_gguf_changes_the_answer_of_the_base_file(base, adapter, tiny_gguf, tmp_path):
    file = adapter_to_gguf(base, adapter, tmp_path / "adapter.gguf")
    with LocalLLM(tiny_gguf, n_threads=1, adapter=file) as llm:
        assert llm.chat(chat(QUESTION)) == LEARNT
    with pytest.raises(UserError, match="adapter of this model"):
        LocalLLM(tiny_gguf, adapter=tmp_path / "none.gguf")


# -- quantisation


def test_all_quantisations_pass_the_gate_and_shrink(tiny_base, tiny_gguf, tmp_path):
    sizes = []
    for quant in QUANTS:
        file = quantize(tiny_gguf, tmp_path / f"model-{quant}.gguf", quant)
        report = verify(tiny_base, file, PROBES)
        assert report["answers"] == len(PROBES) and report["equal"] + report["ties"] == len(PROBES)
        sizes.append(file.stat().st_size)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.6 * sizes[0]


def test_an_unknown_quantisation_names_the_known_ones(tiny_gguf, tmp_path):
    with pytest.raises(UserError, match="q8_0, q6_k"):
        quantize(tiny_gguf, tmp_path / "x.gguf", "q3")


def test_export_writes_verified_files_and_goes_on_from_there(merged, tmp_path, monkeypatch):
    done = export_gguf(merged, tmp_path, "q8_0", PROBES, log=lambda text: None)
    assert {file.name for file in tmp_path.iterdir()} == {"model-f16.gguf", "model-q8_0.gguf"}
    assert done["quant"] == "q8_0" and done["report"]["file_type"] == "q8_0"
    with LocalLLM(tmp_path / "model-q8_0.gguf", n_threads=1) as llm:
        assert llm.chat(PROBES[0]) == LEARNT
    monkeypatch.setattr(export, "to_gguf", lambda *_: pytest.fail("converted again"))
    sizes = {q: quantize(tmp_path / "model-f16.gguf", tmp_path / "x.gguf", q).stat().st_size for q in QUANTS}
    budget = sizes["q5_k_m"] / 1e6
    done = export_gguf(merged, tmp_path, "q8_0", PROBES, budget_mb=budget, log=lambda text: None)
    assert done["quant"] == "q5_k_m" and done["path"].stat().st_size <= budget * 1e6
    with pytest.raises(UserError, match=r"no quantisation fits in 0.01 MB .*q8_0 0.1 MB.*q4_0"):
        export_gguf(merged, tmp_path, "q8_0", PROBES, budget_mb=0.01, log=lambda text: None)


# -- the gate


def test_gate_refuses_a_wrong_template(tiny_base, tiny_gguf, tmp_path):
    wrong = tmp_path / "model-f16.gguf"
    data = tiny_gguf.read_bytes()
    assert data.count(b"message['role'] }}\n") == 1
    wrong.write_bytes(data.replace(b"message['role'] }}\n", b"message['role'] }} "))
    with pytest.raises(GateError, match="prompt differs at token"):
        verify(tiny_base, wrong, PROBES)


def test_gate_refuses_damaged_weights_and_no_file_is_left(tiny_base, tiny_gguf, tmp_path, monkeypatch):
    def damaged(source, out):
        data = bytearray(tiny_gguf.read_bytes())
        data[-30_000:-10_000] = b"\x00\x30" * 10_000  # a stretch of 0.125 in the last layer
        out.write_bytes(data)

    monkeypatch.setattr(export, "to_gguf", damaged)
    with pytest.raises(GateError):
        export_gguf(tiny_base, tmp_path, "q8_0", PROBES, log=lambda text: None)
    assert not list(tmp_path.iterdir())


def test_gate_refuses_the_file_of_another_model(tiny_gguf, tmp_path):
    other = make_base(tmp_path / "other", steps=1)
    with pytest.raises(GateError, match="cosine"):
        verify(other, tiny_gguf, PROBES)


def test_gate_lets_a_numeric_tie_pass_and_nothing_else(tiny_base, tiny_gguf, monkeypatch):
    """A file that always chooses the second best token differs, and not by a tie."""
    greedy = LocalLLM.generate

    def second_best(self, ids, max_tokens=256, temperature=0.0, seed=None):
        tokens = list(greedy(self, ids, max_tokens))
        scores = self.logits(ids)
        return iter([int(scores.argsort()[-2]), *tokens[1:]])

    monkeypatch.setattr(LocalLLM, "generate", second_best)
    with pytest.raises(GateError, match="differs at token 0.*probability gap"):
        verify(tiny_base, tiny_gguf, PROBES[:1])
    monkeypatch.setattr("helpers.gate.TIE", {"f16": 1.1})
    assert verify(tiny_base, tiny_gguf, PROBES[:1])["ties"] == 1
