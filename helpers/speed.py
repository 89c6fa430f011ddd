"""How fast one GGUF file is on this computer, and how much memory it takes: one process, one measurement.

    python -m helpers.speed FILE THREADS CONTEXT      prints JSON

A fresh process for each measurement keeps them apart: nothing is warm but the operating system's file cache, and the
peak of memory is that of this file alone.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from pathlib import Path

from helpers.errors import UserError
from helpers.files import peak_ram_mb

PROMPT_TOKENS = 200  # a system prompt and a question
NEW_TOKENS = 60  # a long answer
ROUNDS = 6  # that both ways of generating take by turns, ten tokens each: so a machine's drift meets both alike


def evict(path: Path | str) -> None:
    """Take a file out of the operating system's cache, as after a restart; does nothing where that cannot be asked."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path | str, threads: int, context: int) -> dict[str, float]:
    """Load the file and use it as a chat would. Random tokens: a speed does not depend on what is said.

    Returns load_s (from opening the file to the first token computed, by when all weights have been read),
    prompt_tokens_per_s, first_token_s (of a prompt of 200 tokens), tokens_per_s (through LocalLLM), bare_tokens_per_s
    (llama.cpp's decode calls alone, as its own benchmark makes them; the rounds alternate), peak_ram_mb with a
    key/value cache for `context` tokens, and runtime_mb: what Python and the library take before the file is opened.
    """
    from helpers.llama_cpu import load_library
    from helpers.local_llm import LocalLLM

    load_library()
    runtime = peak_ram_mb()
    began = time.perf_counter()
    with LocalLLM(path, n_ctx=context) as llm:
        rng = random.Random(0)
        draw = [token for token in (rng.randrange(llm.n_vocab) for _ in range(1000)) if not llm.is_end(token)]
        llm.logits(draw[-1:])
        found = {"load_s": time.perf_counter() - began}
        llm._lib.llama_set_n_threads(llm._context, threads, threads)  # loading always takes all cores
        prompt = draw[:PROMPT_TOKENS]
        began = time.perf_counter()
        llm.logits(prompt)
        found["prompt_tokens_per_s"] = PROMPT_TOKENS / (time.perf_counter() - began)
        began = time.perf_counter()
        next(llm.generate(draw[PROMPT_TOKENS : 2 * PROMPT_TOKENS]))
        found["first_token_s"] = time.perf_counter() - began
        seconds = {True: 0.0, False: 0.0}
        for number in range(2 * ROUNDS):
            ours = number % 4 in (0, 3)
            seconds[ours] += (_ours if ours else _bare)(llm, prompt)
        found["tokens_per_s"], found["bare_tokens_per_s"] = (NEW_TOKENS / seconds[ours] for ours in (True, False))
    return found | {"peak_ram_mb": peak_ram_mb(), "runtime_mb": runtime}


def _ours(llm, prompt: list[int]) -> float:
    """Seconds that LocalLLM takes for a round's tokens after `prompt`, which is computed before the clock starts.

    The model may end an answer early; then the next one follows another last token.
    """
    left, seconds = NEW_TOKENS // ROUNDS, 0.0
    for last in itertools.count():
        ids = [*prompt[:-1], last % llm.n_vocab]
        llm.logits(ids)
        began = time.perf_counter()
        left -= sum(1 for _ in llm.generate(ids, max_tokens=left))
        seconds += time.perf_counter() - began
        if not left:
            return seconds


def _bare(llm, prompt: list[int]) -> float:
    """Seconds of as many decode calls after the same prompt, one token each, with nothing in between."""
    llm.logits(prompt)
    lib, began = llm._lib, time.perf_counter()
    for token in prompt[: NEW_TOKENS // ROUNDS]:
        one = (lib.llama_token * 1)(token)
        if lib.llama_decode(llm._context, lib.llama_batch_get_one(one, 1)) != 0:
            raise RuntimeError(f"llama.cpp failed to compute token {token}")
        lib.llama_synchronize(llm._context)
    return time.perf_counter() - began


def bandwidth(threads: int, size: int = 400_000_000, repeats: int = 20) -> float:
    """Bytes a second that this machine reads from memory: the best of several sums over `size` bytes."""
    import torch

    torch.set_num_threads(threads)
    numbers = torch.ones(size // 4)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - began)
    return size / min(seconds)


if __name__ == "__main__":
    try:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    except UserError as error:
        sys.exit(print(error, file=sys.stderr) or 2)
