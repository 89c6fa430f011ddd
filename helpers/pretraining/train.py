"""Pre-training of the embedded base: a small Llama on generated chats, checkpointed and resumable.

The loss counts answer tokens only: questions are full of random names, which nothing could predict. Matrices are
trained by Muon (Jordan et al. 2024, as in torch.optim.Muon), embeddings and norms by AdamW; the learning rate warms up,
stays, and falls to zero over the last 40 % (warm-up, stable, decay; Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from helpers import engines
from helpers.errors import UserError
from helpers.files import atomic_dir, write_json
from helpers.models import no_bars
from helpers.pretraining.corpus import Corpus
from helpers.pretraining.tokenizer import encode_chat, train_tokenizer


@dataclass(frozen=True)
class PretrainSettings:
    """Shape and schedule. Widths are multiples of 256, so that every llama.cpp quantisation applies."""

    tokens: int = 22_000_000
    seed: int = 1
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    batch_tokens: int = 8192
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_tokens: int = 520_000
    decay: float = 0.4  # share of the whole run
    tokenizer_chats: int = 20_000
    checkpoint_steps: int = 250
    compile: bool = True
    forms: int = 0  # question forms of an attribute; 0: all that a base may see
    init: str = ""  # a base of the same shape to go on from; nothing: random weights and a new tokenizer


POOL = 2048  # chats that are sorted by length together
BUCKETS = (64, 96, 128, 192, 256, 320, 384)  # lengths of a batch's rows: few shapes, so that torch.compile holds


def batches(tokenizer, corpus: Corpus, batch_tokens: int, first_chat: int = 0) -> Iterator[tuple]:
    """(input ids, labels, number of the next chat) without end; chats of like length share a batch.

    A pool of chats is encoded, sorted into BUCKETS and cut into batches. The next chat's number is where a resumed run
    goes on; it is exact at the borders of a pool, which is where `pretrain` writes its checkpoints.
    """
    import random

    import torch

    pad = tokenizer.pad_token_id
    for start in itertools.count(first_chat, POOL):
        buckets: dict[int, list] = {length: [] for length in BUCKETS}
        made = []
        for index in range(start, start + POOL):
            ids, answer = encode_chat(tokenizer, corpus.chat(index))
            ids, answer = ids[: BUCKETS[-1]], answer[: BUCKETS[-1]]
            length = next(length for length in BUCKETS if len(ids) <= length)
            buckets[length].append((ids, answer))
            if len(buckets[length]) == batch_tokens // length:
                made.append((length, buckets[length]))
                buckets[length] = []
        # Remainders join the next longer bucket; the last, incomplete batch is dropped (under 1 % of the chats).
        left: list = []
        for length in BUCKETS:
            left += buckets[length]
            while len(left) >= batch_tokens // length:
                made.append((length, left[: batch_tokens // length]))
                left = left[batch_tokens // length :]
        random.Random(start).shuffle(made)
        for number, (length, rows) in enumerate(made):
            inputs = torch.full((len(rows), length), pad)
            labels = torch.full((len(rows), length), -100)
            for i, (ids, answer) in enumerate(rows):
                inputs[i, : len(ids)] = torch.tensor(ids)
                labels[i, : len(ids)] = torch.tensor([t if a else -100 for t, a in zip(ids, answer, strict=True)])
            yield inputs, labels, start + POOL if number == len(made) - 1 else None


def new_model(settings: PretrainSettings, tokenizer):
    """A LlamaForCausalLM with random weights and tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def deepened(model, new):
    """`new`, a model with more layers, as `model`: the additional layers stand in between and change nothing yet.

    They are copies of the layer below whose two outputs are zero (block expansion, Wu et al. 2024, arXiv 2401.02415).
    """
    old, layers = model.model.layers, new.model.layers
    places = [round((i + 1) * len(layers) / len(old)) - 1 for i in range(len(old))]
    new.load_state_dict({n: p for n, p in model.state_dict().items() if ".layers." not in n}, strict=False)
    for number, layer in enumerate(layers):
        layer.load_state_dict(old[sum(place <= number for place in places[1:])].state_dict())
        if number not in places:
            layer.self_attn.o_proj.weight.data.zero_()
            layer.mlp.down_proj.weight.data.zero_()
    return new


def earlier_base(settings: PretrainSettings) -> tuple:
    """(tokenizer, model in float32) of the base in `settings.init`, deepened where the settings ask for more layers.

    Raises UserError for another shape, or for no base.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not Path(settings.init, "model.safetensors").is_file():
        raise UserError("there is no base to go on from", settings.init, "Name a folder with model.safetensors.")
    tokenizer = AutoTokenizer.from_pretrained(settings.init)
    model, new = AutoModelForCausalLM.from_pretrained(settings.init, dtype="float32"), new_model(settings, tokenizer)
    shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in (model, new)]
    if not shapes[0].items() <= shapes[1].items():
        raise UserError("the base has another shape than this run", settings.init, "Choose one made by this command.")
    return tokenizer, deepened(model, new) if len(shapes[0]) < len(shapes[1]) else model


def optimizers(model, settings: PretrainSettings) -> list:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=settings.learning_rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def keep_fp32():
    """A context in which `Tensor.bfloat16` copies instead: Muon turns every matrix into bf16 for its iteration."""
    import torch
    from torch.overrides import TorchFunctionMode

    class KeepFp32(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return args[0].clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))

    return KeepFp32()


def schedule(tokens: int, settings: PretrainSettings) -> float:
    """Share of the full learning rate after `tokens` tokens."""
    left = max(0.0, 1.0 - tokens / settings.tokens)
    return min(1.0, tokens / settings.warmup_tokens, left / settings.decay)


def _tokenizer(settings: PretrainSettings, corpus: Corpus, out: Path):
    from transformers import AutoTokenizer

    if not (out / "tokenizer").is_dir():
        texts = (m["content"] for i in range(settings.tokenizer_chats) for m in corpus.chat(i))
        with atomic_dir(out / "tokenizer") as folder:
            train_tokenizer(texts, settings.vocab_size).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(out / "tokenizer")


def _check_settings(path: Path, settings: dict) -> None:
    """Note what a folder's run is made with. Raises UserError where it was begun with other settings."""
    if not path.is_file():
        write_json(path, settings)
    before = json.loads(path.read_text(encoding="utf-8"))
    if other := [name for name in settings if before.get(name) != settings[name]]:
        told = ", ".join(f"{name} {before.get(name)} instead of {settings[name]}" for name in other)
        raise UserError(
            f"the folder holds a run with other settings ({told})", path.parent, "Remove it or choose another folder."
        )


def pretrain(out: Path, settings: PretrainSettings, log: Callable[[str], None] = print) -> dict:
    """Train into `out/model` (bf16 safetensors) and return the log; a killed run goes on where it was.

    `out/losses.json` holds one entry per 50 steps: tokens seen, mean loss in nats per answer token, seconds.
    """
    import torch
    from torch.nn import functional as F

    out = Path(out)
    tokenizer, model = earlier_base(settings) if settings.init else (None, None)  # refused before a file is written
    _check_settings(out / "settings.json", dataclasses.asdict(settings))
    corpus = Corpus(settings.seed, settings.forms)
    tokenizer = tokenizer or _tokenizer(settings, corpus, out)
    model = (model or new_model(settings, tokenizer)).train()
    device, precision = engines.machine_precision()
    # Processors without instructions for bf16 take up to forty times as long for its products as for those of fp32
    # (measured on AVX2). fp16, for GPUs of that kind, would need scaled gradients; so small a model can do without.
    bf16 = precision == "bf16"
    model.to(device)
    if device == "cpu":
        model.set_attn_implementation("eager")  # at these lengths a fifth faster than the fused kernel (measured)
    optims = optimizers(model, settings)
    state = {"tokens": 0, "step": 0, "chat": 0, "seconds": 0.0, "history": []}
    checkpoint = out / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        for optim, values in zip(optims, saved["optims"], strict=True):
            optim.load_state_dict(values)
        state = saved["state"]
        log(f"going on at {state['tokens'] / 1e6:.1f}M tokens")

    body = torch.compile(model.model, dynamic=False) if settings.compile else model.model

    def loss_of(inputs, labels):
        targets = labels[:, 1:].flatten()
        places = (targets != -100).nonzero().squeeze(1)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            hidden = body(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
            logits = model.lm_head(hidden[places])  # four tokens in five are no answers and need no logits
        return F.cross_entropy(logits.float(), targets[places])

    began, losses = time.time() - state["seconds"], []
    since = state["step"]
    for inputs, labels, next_chat in batches(tokenizer, corpus, settings.batch_tokens, state["chat"]):
        if state["tokens"] >= settings.tokens:
            break
        rate = settings.learning_rate * schedule(state["tokens"], settings)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = rate
        loss = loss_of(inputs.to(device), labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with nullcontext() if bf16 else keep_fp32():
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
        losses.append(loss.item())
        state["tokens"] += inputs.numel()
        state["step"] += 1
        if len(losses) == 50:
            state["seconds"] = time.time() - began
            entry = {
                "tokens": state["tokens"],
                "loss": round(sum(losses) / len(losses), 4),
                "seconds": round(state["seconds"], 1),
            }
            state["history"].append(entry)
            losses = []
            log(
                f"{entry['tokens'] / 1e6:6.2f}M tokens, loss {entry['loss']:.4f}, "
                f"rate {rate:.5f}, {entry['seconds']:.0f} s"
            )
        if next_chat is not None and state["step"] - since >= settings.checkpoint_steps:
            state["chat"], state["seconds"], since = next_chat, time.time() - began, state["step"]
            losses = []  # a resumed run starts a new mean here: so does this one, for the same log
            saved = {"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "state": state}
            torch.save(saved, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    state["seconds"] = round(time.time() - began, 1)
    with no_bars(), atomic_dir(out / "model") as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_json(
        out / "losses.json",
        {
            "settings": dataclasses.asdict(settings),
            **state,
            "parameters": model.num_parameters(),
            "precision": "bf16" if bf16 else "fp32",
            "torch": torch.__version__,
        },
    )
    return json.loads((out / "losses.json").read_text())
