"""Which of llama.cpp's pre-tokenizers a tokenizer.json uses: decided by its structure, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

# The Split patterns of Llama 3 and Qwen2, as their tokenizer.json spells them.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}


def pretokenizer_name(model_dir: Path | str) -> str | None:
    """llama.cpp's name for the pre-tokenizer of `model_dir`/tokenizer.json; None where it is not known."""
    try:
        spec = json.loads((Path(model_dir) / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if (spec.get("model") or {}).get("type") != "BPE":
        return None
    steps = _steps(spec.get("pre_tokenizer"))
    kinds = [step.get("type") for step in steps]
    # A space put before the text would change the first token, and llama.cpp's rules put none there.
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        return None
    gpt2 = steps[-1].get("use_regex", True)  # ByteLevel splits by GPT-2's pattern unless told not to
    if kinds == ["ByteLevel"] and gpt2 and not spec.get("normalizer"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and gpt2 and steps[0].get("individual_digits") and not spec.get("normalizer"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not gpt2 and steps[0].get("behavior") == "Isolated":
        name = PATTERNS.get((steps[0].get("pattern") or {}).get("Regex"))
        normaliser = (spec.get("normalizer") or {}).get("type")
        return name if normaliser in ((None, "NFC") if name == "qwen2" else (None,)) else None
    return None


def _steps(pre: dict | None) -> list[dict]:
    if not pre:
        return []
    return pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
