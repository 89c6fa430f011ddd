"""Reads what a GGUF file says about itself, without loading its weights."""

from __future__ import annotations

import struct
from pathlib import Path

from helpers.errors import UserError

# GGUF value types: number -> struct code. 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# general.file_type -> the name of the quantisation (llama.cpp's enum llama_ftype)
FILE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 7: "q8_0", 15: "q4_k_m", 17: "q5_k_m", 18: "q6_k", 32: "bf16"}


def read_header(path: Path | str) -> dict[str, object]:
    """Metadata of a GGUF file: strings and numbers as they are, arrays as their length.

    Raises UserError when the file is missing, no GGUF or cut short.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", path, "Check the path.") from error
    except (ValueError, struct.error, UnicodeDecodeError, MemoryError) as error:
        raise UserError("is no whole GGUF file", path, "Export or download it again.") from error


def metadata_bytes(path: Path | str) -> int:
    """Bytes of a GGUF file before its list of tensors: the metadata, most of it the tokenizer."""
    with open(path, "rb") as file:
        _read(file)
        return file.tell()


def _read(file) -> dict[str, object]:
    def number(code: str):
        size = struct.calcsize("<" + code)
        return struct.unpack("<" + code, file.read(size))[0]

    def string() -> str:
        length = number("Q")
        data = file.read(length)
        if len(data) != length:
            raise ValueError("cut short")
        return data.decode("utf-8")

    def value(kind: int):
        if kind == _STRING:
            return string()
        if kind != _ARRAY:
            return number(_SCALARS[kind]) if kind in _SCALARS else _unknown(kind)
        item, length = number("I"), number("Q")
        if item in _SCALARS:
            file.seek(length * struct.calcsize("<" + _SCALARS[item]), 1)
        else:
            for _ in range(length):
                value(item)
        return length

    if file.read(4) != b"GGUF":
        raise ValueError("no GGUF")
    version, _tensors, pairs = number("I"), number("Q"), number("Q")
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version}")
    return {string(): value(number("I")) for _ in range(pairs)}


def _unknown(kind: int):
    raise ValueError(f"unknown value type {kind}")


def file_type(header: dict[str, object]) -> str:
    """Name of the quantisation, such as `q8_0`; `unknown` for types this project does not make."""
    return FILE_TYPES.get(header.get("general.file_type"), "unknown")


def kv_cache_bytes(header: dict[str, object], n_ctx: int) -> int:
    """Bytes of a 16-bit key/value cache for `n_ctx` tokens: layers x tokens x (key + value widths) x 2."""
    arch = header.get("general.architecture", "")

    def field(name: str, default: int) -> int:
        found = header.get(f"{arch}.{name}", default)
        return found if isinstance(found, int) else default

    heads = max(1, field("attention.head_count", 1))
    kv_heads = field("attention.head_count_kv", heads)
    width = field("embedding_length", 0) // heads
    key, val = field("attention.key_length", width), field("attention.value_length", width)
    return field("block_count", 0) * n_ctx * kv_heads * (key + val) * 2
