"""The mean of several bases' weights: one base that understands more than each of them and costs as much to use.

Bases that go on from one another at a high learning rate stop at the edges of one valley of the loss; their mean lies
nearer its floor (Izmailov et al. 2018, arXiv 1803.05407; model soups, Wortsman et al. 2022, arXiv 2203.05482).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.errors import UserError
from helpers.files import atomic_dir, sha256
from helpers.pretraining.card import score_and_describe


def mean_weights(folders: Sequence[Path | str]) -> dict:
    """{name: tensor} in bfloat16: the mean, taken in float32, of the `model.safetensors` of bases of one shape."""
    import torch
    from safetensors.torch import load_file

    bases = [load_file(Path(folder) / "model.safetensors") for folder in folders]
    return {
        name: torch.stack([base[name].float() for base in bases]).mean(0).to(torch.bfloat16).contiguous()
        for name in bases[0]
    }


def average(folders: Sequence[Path], out: Path, log: Callable[[str], None] = print) -> Path:
    """Write the mean of the bases in `folders` to `out`/model, scored and described; the last of them is the one whose
    run the card tells. Raises UserError for fewer than two bases, other shapes or another tokenizer.
    """
    began, last = time.time(), Path(folders[-1])
    if len(folders) < 2:
        raise UserError("the mean of one base is that base", last, "Name two or more.")
    for folder in folders:
        for name in ("model.safetensors", "config.json", "tokenizer.json", "results.json"):
            if not Path(folder, name).is_file():
                raise UserError(f"there is no {name}", folder, "Name folders that pretrain has made.")
            if name in ("config.json", "tokenizer.json") and _read(folder, name) != _read(last, name):
                raise UserError(f"its {name} differs from that of {last}", folder, "Name bases that share their start.")
    from safetensors.torch import save_file

    made = json.loads((last / "results.json").read_text(encoding="utf-8"))
    with atomic_dir(Path(out) / "model") as new:
        shutil.copytree(last, new, dirs_exist_ok=True)
        save_file(mean_weights(folders), new / "model.safetensors", metadata={"format": "pt"})
    told = made["settings"] | {"mean_of": [sha256(Path(folder, "model.safetensors")) for folder in folders]}
    return score_and_describe(Path(out) / "model", told, made["history"], began, log)


def _read(folder: Path | str, name: str) -> dict:
    return json.loads(Path(folder, name).read_text(encoding="utf-8"))
