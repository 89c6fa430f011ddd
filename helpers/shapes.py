"""Full-size models with random weights, as GGUF files: size, memory and speed do not depend on what the weights say."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from helpers.errors import UserError
from helpers.export import quantize, to_gguf
from helpers.files import atomic_dir
from helpers.models import DEFAULT, MODELS, Model, Shape, load_tokenizer, no_bars
from helpers.pretokenizer import PATTERNS
from helpers.toolchain import converter_dir

# Vocabulary size -> the real tokenizer of that size in llama.cpp's source archive. For others, such as SmolLM2's,
# GPT-2's tokens stand in, cut or filled up: both are byte-level BPE, whose tokens take about as many bytes.
VOCABULARIES = {128256: "llama-bpe", 151936: "qwen2", 152064: "qwen2"}
MARKS = ("<|im_start|>", "<|im_end|>")
EXTRA_BYTES = 20_000_000  # room beside the weights: a tokenizer and what is half written


def config(shape: Shape):
    """The transformers configuration of a shape."""
    from transformers import AutoConfig

    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if shape.rope_factor:
        rope |= {"rope_type": "llama3", "factor": shape.rope_factor}
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return AutoConfig.for_model(
        shape.architecture,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def tokenizer(shape: Shape):
    """A tokenizer of the shape's vocabulary size, with ChatML tokens and template: the real one where it is at hand."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    name = VOCABULARIES.get(shape.vocabulary, "gpt-2")
    with no_bars():
        found = AutoTokenizer.from_pretrained(converter_dir() / "models", gguf_file=f"ggml-vocab-{name}.gguf")
    spec = json.loads(found.backend_tokenizer.to_str())
    vocabulary = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    vocabulary += [f"<|unused_{number}|>" for number in range(len(vocabulary), shape.vocabulary)]
    marks = [mark for mark in MARKS if mark not in vocabulary]
    vocabulary[shape.vocabulary - len(marks) :] = marks  # in the place of the last, rarest tokens
    numbers = {token: number for number, token in enumerate(vocabulary)}
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in spec["model"]["merges"]]
    merges = [pair for pair in merges if {*pair, "".join(pair)} <= numbers.keys()]
    raw = Tokenizer(models.BPE(numbers, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name == "gpt-2")
    if name == "gpt-2":  # SmolLM2's rules
        split = pre_tokenizers.Digits(individual_digits=True)
    else:
        pattern = next(pattern for pattern, its in PATTERNS.items() if its == name)
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    raw.decoder = found.backend_tokenizer.decoder
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=MARKS[1], pad_token=MARKS[1])
    made.add_special_tokens({"additional_special_tokens": [MARKS[0]]})
    made.chat_template = load_tokenizer(MODELS[DEFAULT].path).chat_template
    return made


def random_model(shape: Shape, folder: Path) -> Path:
    """Save the architecture with random bfloat16 weights (seed 0) and its tokenizer into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with atomic_dir(folder) as temporary, no_bars():
        model = AutoModelForCausalLM.from_config(config(shape), dtype=torch.bfloat16)
        made = tokenizer(shape)
        model.config.eos_token_id = model.generation_config.eos_token_id = made.eos_token_id
        model.save_pretrained(temporary)
        made.save_pretrained(temporary)
    return folder


def _check_room(model: Model, folder: Path) -> None:
    from helpers.llama_cpu import free_memory

    weights = model.parameters * 2
    needs = {"memory": (weights * 3 // 2, free_memory()), "disk": (weights * 2, shutil.disk_usage(folder).free)}
    for what, (need, free) in needs.items():
        if need + EXTRA_BYTES > free:
            each = sorted(MODELS.values(), key=lambda other: other.parameters)
            fit = [m.key for m in each if m.parameters * need // model.parameters + EXTRA_BYTES <= free]
            raise UserError(
                f"{model.key} needs {need / 1e9:.1f} GB of {what} to be built, {free / 1e9:.1f} GB are free",
                "--base",
                f"{fit[-1]} would fit." if fit else "Free some.",
            )


def gguf(model: Model, quant: str, folder: Path) -> Path:
    """`folder`/KEY-QUANT.gguf of the registry's `model`: made where it is not there yet.

    The shipped base keeps its own weights. Raises UserError, before anything is built, where memory or disk is short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, f16 = folder / f"{model.key}-{quant}.gguf", folder / f"{model.key}-f16.gguf"
    if path.is_file():
        return path
    if not f16.is_file():
        _check_room(model, folder)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            source = Path(model.path) if model.key == DEFAULT else random_model(model.shape, Path(temporary, "model"))
            os.replace(to_gguf(source, Path(temporary, "f16.gguf")), f16)
    return path if quant == "f16" else quantize(f16, path, quant)
