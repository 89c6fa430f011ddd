"""File sizes by arithmetic, against files that llama.cpp's own tools have written: equal to the byte."""

from __future__ import annotations

import dataclasses

import pytest
from tiny import make_tokenizer

from helpers import shapes
from helpers.export import quantize, to_gguf
from helpers.gguf_header import kv_cache_bytes, metadata_bytes, read_header
from helpers.gguf_sizes import SIZED, file_bytes, kv_bytes, tensor_type, tensors
from helpers.models import MODELS, Shape

# Rows of 256 and of another length, tied and not, with biases, with stretched positions, a width of no whole block.
SMALL = {
    "rows of 256": Shape("llama", 9, 256, 512, 4, 2, 400, 512, 1e4),
    "rows of 96": Shape("llama", 8, 96, 160, 3, 1, 400, 512, 1e4),
    "untied, biases": Shape("qwen2", 10, 256, 768, 4, 2, 400, 512, 1e6, 1e-6, tied=False),
    "rows of 96, untied, biases": Shape("qwen2", 4, 96, 256, 3, 3, 400, 512, 1e6, tied=False),
    "stretched positions": Shape("llama", 3, 256, 320, 4, 1, 400, 512, 5e5, rope_factor=8.0),
    "rows of 80": Shape("llama", 2, 80, 112, 2, 1, 400, 512, 1e4),
}


@pytest.mark.parametrize("name", SMALL)
def test_sizes_are_those_of_the_files(name, tmp_path, monkeypatch):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    shape = dataclasses.replace(SMALL[name], vocabulary=len(tokenizer))
    monkeypatch.setattr(shapes, "tokenizer", lambda _: tokenizer)
    f16 = to_gguf(shapes.random_model(shape, tmp_path / "model"), tmp_path / "f16.gguf")
    for quant in SIZED:
        if quant == "q4_0_all" and shape.hidden % 32:
            with pytest.raises(RuntimeError, match="cannot quantise"):  # an embedding in 4 bits knows no way out
                quantize(f16, tmp_path / f"{quant}.gguf", quant)
            continue
        path = f16 if quant == "f16" else quantize(f16, tmp_path / f"{quant}.gguf", quant)
        assert path.stat().st_size == file_bytes(shape, quant, metadata_bytes(path)), quant
    assert kv_cache_bytes(read_header(f16), 512) == kv_bytes(shape, 512)


def test_why_k_quants_do_not_shrink_some_models():
    """SmolLM2's and Qwen2.5's rows do not divide into blocks of 256, Llama's do."""
    for key, kind, embedding in (
        ("smollm2-135m", "Q5_0", "Q8_0"),
        ("qwen2.5-0.5b", "Q5_0", "Q8_0"),
        ("llama-3.2-1b", "Q4_K", "Q6_K"),
    ):
        shape = MODELS[key].shape
        sizes = dict(tensors(shape))
        assert tensor_type("blk.9.attn_q.weight", sizes["blk.9.attn_q.weight"], shape, "q4_k_m") == kind
        assert tensor_type("token_embd.weight", sizes["token_embd.weight"], shape, "q4_k_m") == embedding


def test_cache_of_a_known_model():
    """Llama 3.1 8B: 32 layers, 8 key/value heads of 128: 128 KiB a token."""
    assert kv_bytes(MODELS["llama-3.1-8b"].shape, 1) == 128 * 1024
