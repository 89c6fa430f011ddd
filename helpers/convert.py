"""Runs llama.cpp's own converter scripts in a process of their own, with one addition: a known pre-tokenizer.

The converter recognises BPE tokenizers by a hash of their output and refuses all others. Where it refuses,
and only there, the name that `pretokenizer.py` found from the tokenizer's structure is used.

    python -m helpers.convert CONVERTER_DIR SCRIPT.py PRE_TOKENIZER_OR_- ARGUMENTS...
"""

from __future__ import annotations

import runpy
import sys


def main(folder: str, script: str, pre: str, *arguments: str) -> None:
    sys.path[:0] = [folder, f"{folder}/gguf-py"]
    from conversion.base import TextModel

    recognise = TextModel.get_vocab_base_pre

    def recognise_or_known(self, tokenizer) -> str:
        try:
            return recognise(self, tokenizer)
        except NotImplementedError:
            if pre == "-":
                raise
            return pre

    TextModel.get_vocab_base_pre = recognise_or_known
    sys.argv = [script, *arguments]
    runpy.run_path(f"{folder}/{script}", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
