"""A run folder as the commands see it: whose model it is, how to ask it, and how to export it again."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import UserError
from helpers.files import read_jsonl
from helpers.models import MODELS, Model, resolve
from helpers.profile import Profile, load_profile
from helpers.text import CONTROL, MARKER

PROBES = 12  # conversations that the export gate compares


@dataclass(frozen=True)
class Persona:
    """What every conversation with a model begins with, and what ends its replies."""

    name: str
    system_prompt: str
    stop: tuple[str, ...] = ()

    def messages(self, question: str) -> list[dict]:
        """A conversation that asks `question`. Raises UserError for text that would break the template."""
        question = question.strip()
        if not question:
            raise UserError("the question is empty", None, 'Write it in quotes: "What is my dog called?"')
        if found := MARKER.search(question) or CONTROL.search(question):
            raise UserError(f"the question holds {found.group()!r}, which is no text", None, "Leave it out.")
        return [{"role": "system", "content": self.system_prompt}, {"role": "user", "content": question}]


def profile_of(model: Path | str) -> Profile | None:
    """The profile of the run that `model` (a run folder, or a file in its gguf/) belongs to, if any."""
    path = Path(model)
    for folder in (path, path.parent.parent):
        if (folder / "profile.yaml").is_file():
            return load_profile(folder / "profile.yaml")
    return None


def persona(model: Path | str) -> Persona:
    """How to talk to a model: as its profile says, or as to any assistant where no profile is near."""
    profile = profile_of(model)
    if profile is None:
        return Persona("assistant", "You are a helpful assistant.")
    stop = profile.style.stop if profile.style else None
    return Persona(profile.assistant, profile.system_prompt, (stop,) if stop else ())


def base_of(run: Path) -> Model:
    """The base model that the run's adapter was trained on. Raises UserError when there is no adapter."""
    try:
        path = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            "no adapter in the run folder", run, "Make one: python -m helpers personalize --out ..."
        ) from None
    return next((model for model in MODELS.values() if model.path == path), None) or resolve(path)


def probes(run: Path) -> list[list[dict]]:
    """Conversations to compare models on: evenly taken from the run's evaluation questions."""
    rows = read_jsonl(run / "dataset" / "eval.jsonl")
    return [row["messages"][:-1] for row in rows[:: max(1, len(rows) // PROBES)]][:PROBES]


def export_run(run: Path, quant: str, budget_mb: float | None = None, log=print) -> dict:
    """Write gguf/model-QUANT.gguf of a finished run, verified; returns what `export.export_gguf` returns."""
    from helpers import export

    if not run.is_dir():
        raise UserError("no such run folder", run, "Make one: python -m helpers personalize --out ...")
    if quant not in export.QUANTS:
        raise UserError(f"unknown quantisation {quant!r}", "--quant", f"Use one of {', '.join(export.QUANTS)}.")
    base, conversations = base_of(run), probes(run)
    if (run / "merged" / "config.json").is_file():
        return export.export_gguf(run / "merged", run / "gguf", quant, conversations, budget_mb, log)
    with tempfile.TemporaryDirectory(dir=run, prefix=".merged-") as folder:
        log("merging the adapter into the base")
        merged = export.merge(base, run / "adapter", Path(folder) / "merged")
        return export.export_gguf(merged, run / "gguf", quant, conversations, budget_mb, log)
