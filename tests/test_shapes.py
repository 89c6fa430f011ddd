"""Stand-in tokenizers of the true size, and architectures as their config.json has them."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import shapes
from helpers.models import MODELS
from helpers.pretokenizer import pretokenizer_name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "vocabulary", "rules"),
    [
        ("smollm2-135m", 49152, "smollm"),
        ("llama-3.2-1b", 128256, "llama-bpe"),
        ("smollm2-360m", 60000, "smollm"),  # a size that no real tokenizer at hand has
    ],
)
def test_a_tokenizer_fills_the_vocabulary_and_splits_as_the_models_own(key, vocabulary, rules, tmp_path):
    shape = dataclasses.replace(MODELS[key].shape, vocabulary=vocabulary)
    made = shapes.tokenizer(shape)
    made.save_pretrained(tmp_path)
    assert len(made) == vocabulary and pretokenizer_name(tmp_path) == rules
    assert sorted(made.get_vocab().values()) == list(range(vocabulary))
    text = "<|im_start|>user\nWhat's my dog's name in 2026, naïve 👍?<|im_end|>\n"
    ids = made(text)["input_ids"]
    assert made.decode(ids) == text and len(ids) < 40
    assert ids.count(made.convert_tokens_to_ids("<|im_end|>")) == 1 and made.eos_token == "<|im_end|>"
    chat = made.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert chat.startswith("<|im_start|>user\nHi<|im_end|>")


def test_positions_are_stretched_as_llama_does():
    rope = shapes.config(MODELS["llama-3.2-1b"].shape).rope_parameters
    assert rope["rope_type"] == "llama3" and rope["factor"] == 32.0 and rope["rope_theta"] == 5e5
    assert shapes.config(MODELS["qwen2.5-0.5b"].shape).rope_parameters["rope_type"] == "default"
