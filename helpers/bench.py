"""The published numbers: every shipped profile through the whole path, into data/results/ and the README."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from helpers.errors import UserError
from helpers.evaluation import transformers_answers
from helpers.files import write_bytes, write_json, write_text
from helpers.models import ROOT, load_model, load_tokenizer
from helpers.profile import load_profile
from helpers.wild import wild_rows, wild_scores

RESULTS = ROOT / "data" / "results" / "personalize"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SHOWN = {
    "recall_base": "recall, question forms the base knew and tuning did not",
    "recall_heldout": "recall, question forms nobody saw",
    "wild_recall": "recall, questions in the wild (`data/eval/wild.jsonl`)",
    "abstention": "says it does not know what it was never told",
    "wild_abstention": "the same, questions in the wild",
    "leaks": "leaks: a stranger's question answered with the owner's fact",
    "wild_leaks": "leaks, questions in the wild",
    "recall_noisy": "recall, typed carelessly (typos, capitals, no punctuation)",
    "recall_reversed": "recall, asked backwards",
    "general": "general knowledge",
    "known_people": "people the base knew",
}


def bench(folder: Path, seed: int, log: Callable[[str], None] = print) -> list[dict]:
    """Run every profile of data/profiles into `folder`/NAME and keep the scores, without the answers, as results."""
    from helpers.pipeline import personalize

    summaries = []
    for profile in sorted((ROOT / "data" / "profiles").glob("*.yaml")):
        run = folder / profile.stem
        log(f"== {profile.stem}")
        steps = personalize(profile, run, seed=seed, log=log)
        summary = summarize(run, steps)
        summary["metrics"] |= _wild(profile, run / "merged")
        summaries.append(summary)
        write_json(RESULTS / f"{profile.stem}.json", summaries[-1])
    picture = folder / "alex" / "plots" / "before_after.png"
    write_bytes(RESULTS / "before_after.png", picture.read_bytes())
    write_readme(summaries)
    return summaries


def _wild(profile: Path, model: Path) -> dict[str, dict]:
    network = load_model(str(model))
    network = network.float() if network.device.type == "cpu" else network
    rows = wild_rows(load_profile(profile), profile.stem)
    return wild_scores(transformers_answers(network, load_tokenizer(str(model))), rows)


def summarize(run: Path, steps: dict) -> dict:
    """One result of a whole run: scores before and after, of the GGUF file, sizes and each step's time."""
    parts = {
        name: json.loads((run / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("before", "after", "gguf")
    }
    after = parts["after"]
    kept = ("hardware", "packages", "commit", "data_sha256", "seed", "started")
    return {
        "benchmark": "personalize",
        "profile": run.name,
        "model": after["model"],
        "metrics": after["metrics"],
        "before": parts["before"]["metrics"],
        "gguf": parts["gguf"]["metrics"],
        **{key: after[key] for key in kept},
        "steps": {
            name: {"seconds": step["seconds"], "peak_ram_mb": step["peak_ram_mb"]} for name, step in steps.items()
        },
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_ram_mb": max(step["peak_ram_mb"] for step in steps.values()),
        "files_mb": {path.name: round(path.stat().st_size / 1e6, 2) for path in sorted((run / "gguf").glob("*.gguf"))},
    }


def write_readme(summaries: list[dict], readme: Path = ROOT / "README.md") -> None:
    """Put the table of results between its two markers; raises UserError when they are gone."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UserError(f"the markers {BEGIN} and {END} are missing", readme, "Put them back where the table belongs.")
    head, rest = text.split(BEGIN)
    write_text(readme, f"{head}{BEGIN}\n{table(summaries)}\n{END}{rest.split(END)[1]}")


def table(summaries: list[dict]) -> str:
    """The results as Markdown."""
    first = next(summary for summary in summaries if summary["profile"] == "alex")
    names = [summary["profile"] for summary in summaries]
    lines = [
        "![Scores before and after tuning](data/results/personalize/before_after.png)",
        "",
        "| score, after tuning (before) | " + " | ".join(f"{name}.yaml" for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for key, label in SHOWN.items():
        cells = [
            _percent(s["metrics"][key])
            + (f" ({_percent(s['before'][key])})" if key in s["before"] else "")
            + f", n={s['metrics'][key]['n']}"
            for s in summaries
            if key in s["metrics"]
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    cells = [f"{_percent(s['gguf']['recall_base'])}, n={s['gguf']['recall_base']['n']}" for s in summaries]
    lines.append("| recall of the q8_0 file in llama.cpp, forms the base knew | " + " | ".join(cells) + " |")
    machine = first["hardware"]
    size = first["files_mb"].get("model-q8_0.gguf")
    lines += [
        "",
        f"Alex's model took {first['seconds']:.0f} s from the profile to the checked GGUF file ({size:.1f} MB) on "
        f"{machine['cores']} cores of {machine['cpu']}, with {first['peak_ram_mb'] / 1000:.1f} GB of memory at most. "
        "Measured with `make bench`; counts and 95 % intervals stand in `data/results/personalize/`.",
    ]
    return "\n".join(lines)


def _percent(metric: dict | None) -> str:
    return "-" if metric is None or metric["value"] is None else f"{100 * metric['value']:.1f} %"
