"""LoRA training that can be killed and goes on: rows in, a PEFT adapter out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import engines
from helpers.batching import collate, plan
from helpers.chat import IGNORE, encode_example
from helpers.errors import UserError
from helpers.files import atomic_dir, write_json
from helpers.models import Model
from helpers.packing import pack

DONE = "complete.json"  # written into a checkpoint when all its files are


@dataclass(frozen=True)
class TrainSettings:
    """What a training run depends on, besides base and rows."""

    rank: int = 32
    alpha: int = 64
    learning_rate: float | None = None  # None: by the size of the base, see suited
    plus: float | None = None  # LoRA+: learning rate of the B matrices over that of the A; None: see suited
    epochs: float | None = None  # None: by the size of the base, see suited
    layers: int | None = None  # LoRA on so many of the uppermost layers; None: see suited
    strength: float | None = None  # what the trained change is multiplied by in the end; None: see suited
    turns: int = 6  # questions that share one system prompt, see packing
    batch_size: int | None = None  # chats a step; None: see suited
    quantized: bool = False  # QLoRA: the base in 4 bits (NF4)
    max_length: int = 512  # tokens a chat
    seed: int = 1
    engine: str = "auto"  # auto, unsloth or peft
    stop_loss: float = 0.0  # stop once an epoch's mean loss is below this (0: never); for runs of several epochs
    patience: int = 0  # stop after this many epochs without 1 % less loss (0: never)
    save_steps: int = 50  # steps between checkpoints


def suited(settings: TrainSettings, parameters: int) -> TrainSettings:
    """`settings` with what is None chosen by the base's size.

    Smaller bases take larger steps, and the smallest take larger ones for the B matrices, which begin at nothing, than
    for the A (LoRA+, Hayou et al. 2024, arXiv 2402.12354). In the end they are led part of the way back to what they
    were, so that they forget less (Wortsman et al. 2021, arXiv 2109.01903). An epoch holds some three hundred questions
    per fact. A small base needs all of them; a large one stores a fact after fewer sights: a quarter of an epoch, until
    measurements say otherwise. Of a small base only the six uppermost layers are trained: nothing flows back below
    them, which saves time; so do its larger batches, for which a large base would need more memory.
    """
    small = parameters < 50e6
    chosen = {
        "learning_rate": 5e-4 if parameters < 600e6 else 2e-4,
        "plus": 8 if small else 1,
        "epochs": 1 if small else 1 / 4,
        "layers": 6 if small else None,
        "batch_size": 8 if small else 6,
        "strength": 0.9 if small else 1,
    }
    return dataclasses.replace(settings, **{name: getattr(settings, name) or value for name, value in chosen.items()})


def train(
    base: Model,
    rows: Sequence[dict],
    out_dir: Path | str,
    settings: TrainSettings | None = None,
    log: Callable[[str], None] = print,
) -> dict:
    """Train a LoRA adapter on the answers in `rows` (dicts with `messages`); write it to `out_dir`/adapter.

    Returns what adapter/training.json holds: `history` ([{step, epoch, loss}]), `settings`, `seconds`,
    `tokens`, `engine`, `versions` and more. Called again after a kill it goes on from the last checkpoint to
    the same result; called again when all is done it only reads the result. Raises UserError for rows that
    cannot be trained on, RuntimeError when the loss stops being a number.
    """
    out_dir, log = Path(out_dir), engines.aloud(log)
    settings = suited(settings or TrainSettings(), engines.size_of(base))
    key = _key(base, rows, settings)
    done = _read(out_dir / "adapter" / "training.json")
    if done.get("key") == key and (out_dir / "adapter" / "adapter_model.safetensors").is_file():
        log("training: the adapter is already there")
        return done
    if not rows:
        raise UserError("there is nothing to train on", out_dir, "Give at least one row.")
    started = time.perf_counter()
    engine, model, tokenizer, trainer_class, precision, device = _load(base, settings, log)
    from peft.helpers import disable_input_dtype_casting  # after Unsloth, which patches PEFT

    examples = [
        encode_example(tokenizer, row["messages"], settings.max_length, f"row {number}")
        for number, row in enumerate(rows, 1)
    ]
    apart = engines.keeps_turns_apart(engine, device)
    epochs = _epochs(tokenizer, rows, examples, settings, apart)
    lengths = [[len(chat["input_ids"]) for chat in chats] for chats in epochs]
    engines.suit_attention(model, device, max(map(max, lengths)))
    order = plan(lengths, settings.batch_size, settings.seed)
    chats = [chat for epoch in epochs for chat in epoch]
    epoch_steps = max(1, round(len(chats) / settings.epochs / settings.batch_size))
    checkpoint = _resume_point(out_dir / ".checkpoints", {"key": key, "engine": engine, "device": device})
    before = _read(checkpoint / DONE)["seconds"] if checkpoint else 0.0
    if checkpoint:
        log(f"training: goes on from step {_step(checkpoint)}")

    def clock() -> float:
        return round(before + time.perf_counter() - started, 1)

    with engines.quiet():
        config = _config(base, settings, len(order), out_dir / ".checkpoints", precision, device, model)
        trainer = _trainer(trainer_class, model, tokenizer, config, settings, chats, order)
        trainer.add_callback(_watch(settings, epoch_steps, log, clock))
        # PEFT would turn the inputs of the LoRA matrices into fp32 and the precision set for training back again. In
        # fp32 it has to turn them: nothing else does, and TRL makes the matrices bf16 for QLoRA.
        with disable_input_dtype_casting(model, active=apart and precision != "fp32"):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        history = [
            {
                "step": entry["step"],
                "epoch": round(entry["step"] / epoch_steps, 3),
                "loss": entry["loss"],
            }
            for entry in trainer.state.log_history
            if "loss" in entry
        ]
        seen = [chats[number] for number in order[: len(history) * settings.batch_size]]
        tokens = {
            "all": sum(len(chat["input_ids"]) for chat in seen),
            "trained": sum(label != IGNORE for chat in seen for label in chat["labels"]),
        }
        result = {
            "history": history,
            "loss": history[-1]["loss"],
            "steps": len(history),
            "planned_steps": trainer.state.max_steps,
            "rows": len(rows),
            "chats": round(len(chats) / settings.epochs),  # an epoch
            "tokens": tokens,
            "seconds": clock(),
            "engine": engine,
            "device": device,
            "precision": precision,
            "versions": _versions(engine),
            "settings": dataclasses.asdict(settings),
            "base": {"path": base.path, "commit": getattr(model.config, "_commit_hash", None)},
            "key": key,
        }
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.data *= settings.strength
        with atomic_dir(out_dir / "adapter") as new:
            model.save_pretrained(new, save_embedding_layers=False)
            (new / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
            written = _read(new / "adapter_config.json")
            if isinstance(written["target_modules"], list):  # PEFT writes a set: another order in every run
                written["target_modules"] = sorted(written["target_modules"])
                write_json(new / "adapter_config.json", written)
            write_json(new / "training.json", result)
    shutil.rmtree(out_dir / ".checkpoints", ignore_errors=True)
    return result


def should_stop(losses: Sequence[float], epoch_steps: int, settings: TrainSettings) -> bool:
    """Whether to stop early: judged when an epoch ends, by the mean training loss of each epoch so far."""
    if not losses or len(losses) % epoch_steps:
        return False
    means = [sum(losses[at : at + epoch_steps]) / epoch_steps for at in range(0, len(losses), epoch_steps)]
    if means[-1] < settings.stop_loss:
        return True
    last = settings.patience
    return 0 < last < len(means) and min(means[-last:]) > 0.99 * min(means[:-last])


def _load(base: Model, settings: TrainSettings, log):
    """Engine, model, tokenizer, trainer class, precision, device; PEFT where Unsloth refuses the base."""
    engine, why = engines.choose(settings.engine)
    with engines.quiet():
        device, precision = engines.machine_precision()
        try:
            parts = engines.with_lora(base, engine, settings, precision, device)
        except UserError:
            raise
        except Exception as error:  # Unsloth refuses some architectures with errors of many kinds
            if engine == "peft" or settings.engine != "auto":
                raise
            engine, why = "peft", f"Unsloth cannot load this base: {engines.first_line(error)}"
            parts = engines.with_lora(base, engine, settings, precision, device)
    log(f"training: {engine} ({why}) on {device}, {precision}{', 4-bit base' if settings.quantized else ''}")
    return engine, *parts, precision, device


def _epochs(
    tokenizer, rows: Sequence[dict], examples: list[dict], settings: TrainSettings, apart: bool
) -> list[list[dict]]:
    """The encoded chats of each epoch; of a part of an epoch its beginning."""
    epochs = []
    for epoch in range(math.ceil(settings.epochs)):
        seed = settings.seed * 1000 + epoch
        chats = pack(tokenizer, rows, examples, settings.turns, settings.max_length, seed, apart)
        epochs.append(chats[: math.ceil((settings.epochs - epoch) * len(chats))])
    return epochs


def _config(base: Model, settings: TrainSettings, rows: int, folder: Path, precision: str, device: str, model):
    from trl import SFTConfig

    steps = math.ceil(rows / settings.batch_size)
    return SFTConfig(
        # The rows come in the planned order of all epochs, so for the trainer it is one epoch in sequence.
        output_dir=str(folder),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(0.03 * steps)),
        max_grad_norm=1.0,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        gradient_checkpointing=bool(getattr(model, "is_gradient_checkpointing", False)),
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        dataloader_pin_memory=device == "cuda",
        max_length=settings.max_length,
        packing=False,
        remove_unused_columns=False,  # TRL does not know position_ids
        padding_free=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _trainer(trainer_class, model, tokenizer, config, settings: TrainSettings, examples: list[dict], order: list[int]):
    import torch
    from datasets import Dataset
    from peft.optimizers import create_loraplus_optimizer
    from transformers import PrinterCallback

    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    columns = {name: [example[name] for example in examples] for name in examples[0]}
    trainer = trainer_class(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=tokenizer,
        data_collator=functools.partial(collate, pad_id=pad_id),
        optimizers=(
            create_loraplus_optimizer(
                model, torch.optim.AdamW, lr=settings.learning_rate, loraplus_lr_ratio=settings.plus, fused=True
            ),
            None,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _watch(settings: TrainSettings, epoch_steps: int, log, clock):
    """Progress lines, early stop, and the mark that tells a whole checkpoint from one cut off by a kill."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        told = began = first = None  # time of the last line; time and step of the first step of this process

        def on_log(self, args, state, control, logs=None, **_):
            loss, now = (logs or {}).get("loss"), time.monotonic()
            step, steps = state.global_step, state.max_steps
            if loss is None:
                return
            if not math.isfinite(loss):
                raise RuntimeError(f"the loss is not a number at step {step}: lower the learning rate")
            if self.began is None:
                self.told, self.began, self.first = now, now, step
            if step % epoch_steps == 0:
                losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
                control.should_training_stop |= should_stop(losses, epoch_steps, settings)
            tenth = step * 10 // steps > (step - 1) * 10 // steps
            if tenth or now - self.told > 15 or control.should_training_stop:
                self.told = now
                left = (now - self.began) / max(1, step - self.first) * (steps - step)
                log(
                    f"training: step {step}/{steps}, epoch {step / epoch_steps:.1f}, "
                    f"loss {loss:.4f}, about {left:.0f} s left"
                )

        def on_save(self, args, state, control, **_):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / DONE, {"seconds": clock()})

    return Watch()


def _resume_point(folder: Path, run: dict) -> Path | None:
    """The newest whole checkpoint of this very `run`; what another run left is removed."""
    if _read(folder / "run.json") != run:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / "run.json", run)
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{DONE}") if "seconds" in _read(path)]
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _key(base: Model, rows: Sequence[dict], settings: TrainSettings) -> str:
    """Hash of all that decides the result; how often to save does not."""
    files = (
        [
            [file.name, file.stat().st_size, file.stat().st_mtime_ns]
            for file in sorted(Path(base.path).iterdir())
            if file.is_file()
        ]
        if base.local
        else []
    )
    decides = {
        **dataclasses.asdict(settings),
        "save_steps": None,
        "base": base.path,
        "files": files,
        "targets": base.lora_targets,
        "rows": [row["messages"] for row in rows],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _versions(engine: str) -> dict[str, str]:
    from importlib.metadata import version

    names = ["torch", "transformers", "peft", "trl", *(["unsloth", "unsloth_zoo"] * (engine == "unsloth"))]
    return {name: version(name) for name in names}
