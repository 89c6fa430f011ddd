"""The registry of base models: what a name leads to, and whether its numbers are true."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.gguf_sizes import SIZED, file_bytes, tensors
from helpers.models import DEFAULT, MODELS, ROOT, Model, load_model, load_tokenizer, resolve
from helpers.settings import setting
from helpers.shapes import config


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    """No .env of the developer, no variable of the shell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONAL_LLM_BASE", raising=False)


# -- settings


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path, monkeypatch):
    assert setting("PERSONAL_LLM_BASE") is None and setting("PERSONAL_LLM_BASE", "x") == "x"
    (tmp_path / ".env").write_text("PERSONAL_LLM_BASE=smollm2-360m\n")
    assert setting("PERSONAL_LLM_BASE", "x") == "smollm2-360m" and resolve().key == "smollm2-360m"
    monkeypatch.setenv("PERSONAL_LLM_BASE", "qwen2.5-0.5b")
    assert resolve().key == "qwen2.5-0.5b" and resolve("llama-3.2-1b").key == "llama-3.2-1b"
    monkeypatch.setenv("PERSONAL_LLM_BASE", "")
    assert resolve().key == "smollm2-360m"  # empty counts as not set


# -- resolve


def test_every_key_leads_to_its_entry():
    assert DEFAULT in MODELS and resolve().key == DEFAULT
    for key, model in MODELS.items():
        assert resolve(key) is model and model.key == key
        assert model.licence != "unknown" and model.stop_tokens and model.lora_targets and model.min_ram_gb >= 2
    assert MODELS[DEFAULT].path == str(ROOT / "data" / "base")


@pytest.mark.parametrize(("cuda", "key"), [(True, "smollm2-360m"), (False, DEFAULT)])
def test_auto_chooses_by_the_gpu(cuda, key, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve("auto").key == key


def test_a_folder_is_a_model(tiny_base):
    model = resolve(str(tiny_base))
    assert model.local and model.path == str(tiny_base) and model.key == tiny_base.name
    assert model.licence == "unknown" and model.shape is None and not model.parameters and 1.5 <= model.min_ram_gb < 1.7
    assert model.lora_targets == MODELS[DEFAULT].lora_targets
    assert load_tokenizer(model.path).chat_template and load_model(model.path).training is False


def folder_with(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "no config.json"),
        ({"config_json": "{"}, "not valid JSON"),
        ({"config_json": "{}"}, "safetensors"),
        ({"config_json": "{}", "model_safetensors": ""}, "safetensors"),
        ({"config_json": "[1]", "model_safetensors": "x"}, "config.json"),
        ({"config_json": "\udcff", "model_safetensors": "x"}, "config.json"),
    ],
)
def test_a_folder_that_is_no_model_is_told_in_one_line(tmp_path, files, told):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=told) as caught:
        resolve(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ["smollm3", "SmolLM2-360M", "no/such/folder", "POCKET", "a\nb", "\0"])
def test_an_unknown_name_is_told_in_one_line(base):
    with pytest.raises(UserError, match="unknown base model") as caught:
        resolve(base)
    assert "\n" not in str(caught.value) and "smollm2-360m" in str(caught.value)


def test_a_tokenizer_without_a_chat_template_is_refused(tiny_base, tmp_path):
    tokenizer = load_tokenizer(str(tiny_base))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(tmp_path / "bare"))


# -- numbers


@pytest.mark.parametrize("key", MODELS)
def test_an_entry_is_complete_and_its_parameters_are_those_of_the_architecture(key):
    import torch
    from transformers import AutoModelForCausalLM

    model = MODELS[key]
    assert model.template in ("chatml", "llama3")
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config(model.shape))
    assert network.num_parameters() == model.parameters
    linear = {
        name.rsplit(".", 1)[-1] for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)
    }
    assert set(model.lora_targets) == linear - {"lm_head"}
    listed = {name: prod(size) for name, size in tensors(model.shape) if name != "rope_freqs.weight"}
    assert sum(listed.values()) == model.parameters  # the file's tensors, too
    assert len(listed) == len(network.state_dict()) - model.shape.tied
    for smaller, larger in zip(SIZED[1:], SIZED):
        assert file_bytes(model.shape, smaller, 0) <= file_bytes(model.shape, larger, 0)


def test_the_shipped_base_has_the_shape_of_its_entry():
    shape = MODELS[DEFAULT].shape
    told = json.loads(Path(MODELS[DEFAULT].path, "config.json").read_text())
    names = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "feed_forward": "intermediate_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "vocabulary": "vocab_size",
        "context": "max_position_embeddings",
        "norm_eps": "rms_norm_eps",
        "tied": "tie_word_embeddings",
        "architecture": "model_type",
        "head": "head_dim",
    }
    for ours, theirs in names.items():
        assert getattr(shape, ours) == told[theirs], ours
    assert shape.rope_theta == told["rope_parameters"]["rope_theta"]


def test_what_is_shipped_is_what_the_registry_says():
    folder = ROOT / "data" / "base"
    if not (folder / "config.json").is_file():
        pytest.skip("the embedded base is not there yet")
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] % 32 == 0 and config["tie_word_embeddings"]
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 25e6
    assert isinstance(MODELS[DEFAULT], Model)
