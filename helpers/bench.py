"""The published numbers: every shipped profile through the whole path, into data/results/ and the README."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers import faults
from helpers.errors import UserError
from helpers.evaluation import ask_all, transformers_answers
from helpers.files import write_json, write_text
from helpers.models import ROOT, load_model, load_tokenizer
from helpers.profile import load_profile
from helpers.results import pooled
from helpers.wild import wild_rows, wild_scores

RESULTS = ROOT / "data" / "results" / "personalize"
FAULTS = ROOT / "data" / "results" / "faults.json"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SAME = ("model", "hardware", "packages", "commit")  # what the runs of a bench have in common
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
    "recall_mentions": 'recall, a value in the question ("Does Alex live in Boston?")',
    "verbatim": "right answers that spell the fact letter for letter",
    "general": "general knowledge",
    "known_people": "people the base knew",
}


def bench(folder: Path, seeds: int, log: Callable[[str], None] = print) -> list[dict]:
    """Run every profile of data/profiles with the seeds 1 to `seeds` into `folder`/NAME-SEED; keep the scores.

    Kept are the numbers, pooled and of each run, without the answers. Each run is a process of its own, so that its
    memory and its times are those of a user. A run that is there already is not done again.
    """
    from helpers import plots

    summaries, answers, wild = [], [], []
    for profile in sorted((ROOT / "data" / "profiles").glob("*.yaml")):
        runs = []
        for seed in range(1, seeds + 1):
            run = folder / f"{profile.stem}-{seed}"
            log(f"== {run.name}")
            command = ["personalize", "--profile", str(profile), "--out", str(run), "--seed", str(seed)]
            code = subprocess.run([sys.executable, "-m", "helpers", *command], cwd=ROOT).returncode
            if code:  # the run has said why
                raise SystemExit(code)
            runs.append(summarize(run))
            wild += (asked := _wild(profile, run / "merged"))
            runs[-1]["metrics"] |= wild_scores(asked)
            answers += _read(run / "results" / "after.json")["answers"]
        summaries.append(pool(profile.stem, runs))
        write_json(RESULTS / f"{profile.stem}.json", summaries[-1])
    alex = next(summary for summary in summaries if summary["profile"] == "alex")
    plots.before_after(alex["before"], alex["metrics"], RESULTS / "before_after.png")
    write_between(table(summaries), ROOT / "README.md")
    found = {**{key: summaries[0][key] for key in SAME}, **faults.count(answers, wild)}
    write_json(FAULTS, found)
    write_between(faults.as_text(found), FAULTS.parent / "README.md")
    return summaries


def _wild(profile: Path, model: Path) -> list[dict]:
    network = load_model(str(model))
    network = network.float() if network.device.type == "cpu" else network
    rows = wild_rows(load_profile(profile), profile.stem)
    return ask_all(transformers_answers(network, load_tokenizer(str(model))), rows)


def summarize(run: Path) -> dict:
    """One result of a whole run: scores before and after, of the GGUF file, sizes and each step's time."""
    parts = {name: _read(run / "results" / f"{name}.json") for name in ("before", "after", "gguf")}
    steps = _read(run / "steps.json")
    kept = ("model", "hardware", "packages", "commit", "data_sha256", "seed", "started")
    return {
        **{key: parts["after"][key] for key in kept},
        "metrics": parts["after"]["metrics"],
        "before": parts["before"]["metrics"],
        "gguf": parts["gguf"]["metrics"],
        "steps": {
            name: {"seconds": step["seconds"], "peak_ram_mb": step["peak_ram_mb"]} for name, step in steps.items()
        },
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_ram_mb": max(step["peak_ram_mb"] for step in steps.values()),
        "files_mb": {path.name: round(path.stat().st_size / 1e6, 2) for path in sorted((run / "gguf").glob("*.gguf"))},
    }


def pool(profile: str, runs: Sequence[dict]) -> dict:
    """One result of several runs that differ in their seed: all their questions together, and each run's own numbers.

    `seconds` and `peak_ram_mb` are those of the worst run. Raises UserError when the runs differ in more than the seed.
    """
    for key in SAME:
        if any(run[key] != runs[0][key] for run in runs):
            raise UserError(f"its runs differ in their {key}", profile, "Remove the run folders and measure again.")
    return {
        "benchmark": "personalize",
        "profile": profile,
        **{part: pooled([run[part] for run in runs]) for part in ("metrics", "before", "gguf")},
        **{key: runs[0][key] for key in SAME},
        "seed": [run["seed"] for run in runs],
        "seconds": max(run["seconds"] for run in runs),
        "peak_ram_mb": max(run["peak_ram_mb"] for run in runs),
        "runs": [{key: value for key, value in run.items() if key not in SAME} for run in runs],
    }


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write_between(text: str, readme: Path) -> None:
    """Put `text` between the markers of a file; raises UserError when they are gone."""
    before = readme.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        raise UserError(f"the markers {BEGIN} and {END} are missing", readme, "Put them back where the results belong.")
    head, rest = before.split(BEGIN)
    write_text(readme, f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def table(summaries: list[dict]) -> str:
    """The results as Markdown."""
    names = [summary["profile"] for summary in summaries]
    lines = [
        "![Scores before and after tuning, alex.yaml](data/results/personalize/before_after.png)",
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
    runs = [run for summary in summaries for run in summary["runs"]]
    single = [run["metrics"]["recall_base"]["value"] for run in runs]
    seconds = [run["seconds"] for run in runs]
    machine = summaries[0]["hardware"]
    size = max(run["files_mb"]["model-q8_0.gguf"] for run in runs)
    memory = max(run["peak_ram_mb"] for run in runs) / 1000
    lines += [
        "",
        f"The questions of {len(summaries[0]['runs'])} runs a profile, each with another seed, are counted together; "
        f"the first line's recall was {100 * min(single):.1f} to {100 * max(single):.1f} % in a single run. A run took "
        f"{min(seconds):.0f} to {max(seconds):.0f} s from the profile to the checked GGUF file ({size:.2f} MB) on "
        f"{machine['cores']} cores of {machine['cpu']}, with {memory:.1f} GB of memory at most. Measured with "
        "`make bench`; counts, 95 % intervals and each run's numbers stand in `data/results/personalize/`.",
    ]
    return "\n".join(lines)


def _percent(metric: dict) -> str:
    return "-" if metric["value"] is None else f"{100 * metric['value']:.1f} %"
