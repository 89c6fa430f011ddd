"""The size of a GGUF file from a model's shape alone: llama.cpp's layout and quantisation rules, to the byte.

The rules are those of `llama_tensor_get_type` and `tensor_type_fallback` in src/llama-quant.cpp of llama.cpp, for dense
Llama and Qwen2 models without an importance matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod

from helpers.models import Shape

ALIGNMENT = 32  # bytes: each tensor's data and the end of the metadata are filled up to a multiple of it
# Quantisation -> type of an ordinary matrix.
_USUAL = {
    "f16": "F16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q4_k_m": "Q4_K",
    "q4_0": "Q4_0",
    "q4_0_all": "Q4_0",
}
SIZED = tuple(_USUAL)
# K-quants work on 256 weights of a row at a time; rows of another length get the next larger type with blocks of 32.
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@cache
def _block(kind: str) -> tuple[int, int]:
    """(weights, bytes) of one block of a GGML type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]]


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, dimensions, rows' length first) of every tensor in the file, as the converter names them."""
    hidden, wide, keys = shape.hidden, shape.feed_forward, shape.kv_heads * shape.head
    yield "token_embd.weight", (hidden, shape.vocabulary)
    for layer in range(shape.layers):
        matrices = {
            "attn_q": (hidden, hidden),
            "attn_k": (hidden, keys),
            "attn_v": (hidden, keys),
            "attn_output": (hidden, hidden),
            "ffn_gate": (hidden, wide),
            "ffn_up": (hidden, wide),
            "ffn_down": (wide, hidden),
        }
        for name, size in matrices.items():
            yield f"blk.{layer}.{name}.weight", size
            if shape.architecture == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                yield f"blk.{layer}.{name}.bias", size[1:]
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (hidden,)
    yield "output_norm.weight", (hidden,)
    if not shape.tied:
        yield "output.weight", (hidden, shape.vocabulary)
    if shape.rope_factor:
        yield "rope_freqs.weight", (shape.head // 2,)


def tensor_type(name: str, size: tuple[int, ...], shape: Shape, quant: str) -> str:
    """The GGML type that llama.cpp stores the tensor in."""
    kind = _USUAL[quant]
    if len(size) == 1:
        return "F32"  # norms and biases: too small to be worth rounding
    if quant == "f16" or (quant == "q4_0_all" and name == "token_embd.weight"):
        return kind
    if name == "output.weight" or (shape.tied and name == "token_embd.weight"):
        if size[0] % _block(kind)[0]:
            kind = "Q8_0"
        elif kind != "Q8_0":
            kind = "Q6_K"  # the output decides every word, so it keeps more bits
    elif quant in ("q5_k_m", "q4_k_m") and (".attn_v." in name or ".ffn_down." in name):
        layer, eighth = int(name.split(".")[1]), shape.layers // 8
        if layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2:
            kind = "Q6_K"  # the "m": half of the layers keep more bits where it helps most
    if size[0] % _block(kind)[0]:
        kind = _FALLBACK.get(kind, kind)
    return kind if size[0] % _block(kind)[0] == 0 else "F16"


def tensor_bytes(shape: Shape, quant: str) -> dict[str, int]:
    """Bytes of each tensor's data in a file of this quantisation, without padding."""
    found = {}
    for name, size in tensors(shape):
        weights, width = _block(tensor_type(name, size, shape, quant))
        found[name] = prod(size) // weights * width
    return found


def file_bytes(shape: Shape, quant: str, metadata: int) -> int:
    """Bytes of the whole file. `metadata` are those before the list of tensors: nearly all of it is the tokenizer."""
    listed = sum(8 + len(name) + 4 + 8 * len(size) + 4 + 8 for name, size in tensors(shape))
    return _padded(metadata + listed) + sum(map(_padded, tensor_bytes(shape, quant).values()))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def kv_bytes(shape: Shape, context: int) -> int:
    """Bytes of the 16-bit key/value cache for `context` tokens: layers x tokens x (keys + values) x 2."""
    return shape.layers * context * 2 * shape.kv_heads * shape.head * 2
