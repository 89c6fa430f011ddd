"""The last step of pre-training: score the base, write its card, and put both beside the weights."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from helpers.files import sha256, write_json, write_jsonl, write_text
from helpers.models import load_model, load_tokenizer
from helpers.pretraining.corpus import KNOWN_PEOPLE, Corpus
from helpers.pretraining.probes import score_base, shipped_rows
from helpers.pretraining.train import PretrainSettings, pretrain
from helpers.results import record


def corpus_sha256(seed: int, forms: int = 0, chats: int = 1000) -> str:
    """Checksum of the first chats: two runs with the same one were trained on the same text."""
    corpus = Corpus(seed, forms)
    return hashlib.sha256(json.dumps([corpus.chat(i) for i in range(chats)]).encode()).hexdigest()


def make_base(out: Path, settings: PretrainSettings, log: Callable[[str], None] = print) -> Path:
    """Pre-train into `out`, then score it: `out/model` holds weights, tokenizer, `known.jsonl`, results and card."""
    began = time.time()
    # A base that replaces the one it goes on from is named by its weights, not by its folder.
    first = sha256(Path(settings.init, "model.safetensors")) if settings.init else ""
    losses = pretrain(out, settings, log)
    told = {
        **losses["settings"],
        "tokens_seen": losses["tokens"],
        "parameters": losses["parameters"],
        "seconds": losses["seconds"],
        "corpus_sha256": corpus_sha256(settings.seed, settings.forms),
        "init_sha256": first,
    }
    return score_and_describe(Path(out) / "model", told, losses["history"], began, log)


def score_and_describe(
    folder: Path, told: dict, history: list[dict], began: float, log: Callable[[str], None] = print
) -> Path:
    """Score the base in `folder` and write `known.jsonl`, `results.json` (settings `told`, losses `history`) and card."""
    write_jsonl(folder / "known.jsonl", shipped_rows())
    log("scoring the base")
    scores = score_base(load_model(str(folder)).float(), load_tokenizer(str(folder)))
    result = record("pretraining", "base", scores, told, began, seed=told["seed"]) | {"history": history}
    write_json(folder / "results.json", result)
    write_text(folder / "README.md", model_card(result))
    return folder


def model_card(result: dict) -> str:
    """The card of a base, from its results alone."""
    told, machine = result["settings"], result["hardware"]
    minutes = told["seconds"] / 60
    start = f" --weight-decay {told['weight_decay']}" if told["weight_decay"] != PretrainSettings.weight_decay else ""
    start += f" --layers {told['layers']}" if told["layers"] != PretrainSettings.layers else ""
    start += f" --forms {told['forms']}" if told["forms"] else ""
    start += f" --init {told['init']}" if told["init"] else ""
    limit = f" Only {told['forms']} question forms an attribute." if told["forms"] else ""
    before = (
        f"\n- It goes on from an earlier base (SHA-256 of its weights: `{told['init_sha256'][:16]}`), whose tokenizer it keeps."
        if told["init"]
        else ""
    )
    mean = (
        "\n- Its weights are the mean of those of this run and of "
        f"{len(told['mean_of']) - 1} bases before it, made by `python -m helpers average` (SHA-256 of each: "
        + ", ".join(f"`{digest[:16]}`" for digest in told["mean_of"])
        + ")."
        if "mean_of" in told
        else ""
    )
    rows = "\n".join(
        f"| {name} | {100 * m['value']:.1f} % | {m['n']} | {100 * m['ci95'][0]:.1f}-{100 * m['ci95'][1]:.1f} % |"
        for name, m in result["metrics"].items()
    )
    return f"""---
license: apache-2.0
language: en
---
# A small base model for personal assistants

A Llama-architecture chat model with {told["parameters"] / 1e6:.2f} million parameters, pre-trained from nothing by this
project on text that this project generates. It exists so that every step of the series runs offline on two CPU cores. It
knows {KNOWN_PEOPLE} fictional people, some general knowledge and small talk, reads facts from its system prompt, and says so when
it does not know. It is no general assistant: outside its corpus it knows nothing.

## How it was made

- Architecture: {told["layers"]} layers, width {told["hidden_size"]}, feed-forward {told["intermediate_size"]}, {told["heads"]} heads \
({told["kv_heads"]} key-value heads), vocabulary {told["vocab_size"]}, tied embeddings, bfloat16.
- Tokenizer: byte-level BPE trained on the corpus, ChatML tokens, the pre-tokenizer rules of SmolLM2 (digits stand alone).
- Corpus: chats generated from `data/phrasings/` and `data/people.yaml`; every person is invented. Question forms of the
  split `heldout` are never used.{limit} Checksum of the first 1,000 chats: `{told["corpus_sha256"][:16]}`.
- {told["tokens_seen"] / 1e6:.1f} million tokens (padding included) in {minutes:.0f} minutes on {machine["cores"]} cores of {machine["cpu"]}.
  Muon for matrices, AdamW for the rest, learning rate {told["learning_rate"]}, seed {told["seed"]}.{before}{mean}

```
python -m helpers pretrain --out runs/base --tokens {told["tokens"]} --seed {told["seed"]} --rate {told["learning_rate"]}{start}
```

## Scores of the untuned base

| score | value | n | 95 % interval |
|---|---|---|---|
{rows}

"forms it knew" are question forms of the corpus; "forms held out" no training has seen. Recall means that the answer
contains the fact; the measured file is `results.json`.
"""
