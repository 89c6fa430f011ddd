"""Sample efficiency: recall against the number of different examples of each fact, with training otherwise equal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from helpers import engines, evaluation, quality, synthesis
from helpers.errors import UserError
from helpers.export import merge
from helpers.files import sha256, write_bytes, write_json
from helpers.models import ROOT, Model, load_model, load_tokenizer, resolve
from helpers.profile import Profile, load_profile
from helpers.results import pooled, record
from helpers.training import TrainSettings, suited, train

RESULTS = ROOT / "data" / "results" / "samples"
COUNTS = (0, 1, 3, 10, 30, 100, 300)  # different examples of each fact; 0: the untuned base
SIGHTS = 300  # how often a training set asks for each fact, however few its different examples are
METRICS = ("recall_heldout", "recall_base")
SAME = ("profile", "sights", "base", "training")  # settings that the points of a curve have in common


@dataclass(frozen=True)
class Report:
    """What a reader told of a trial of their own: a report, measured neither here nor in the same way."""

    model: str  # the registry's key for a base of that size
    said: str
    recall: float  # about; a share from 0 to 1
    samples: int | None  # None: not said


REPORTS = (
    Report("llama-3.2-1b", "llama-3.1-8b-instruct of 2.47 GB: about 95 % with 10 samples", 0.95, 10),  # 16 bit: 1B
    Report("qwen2.5-0.5b", "qwen2.5-0.5b: about 75 %", 0.75, None),
    Report("smollm2-360m", "SmolLM2 360M: about 60 %", 0.60, None),
    Report("smollm2-135m", "SmolLM2 135M: about 40 %", 0.40, None),
)


def material(profile: Profile, seed: int, base: Model) -> tuple[list[dict], list[dict]]:
    """(rows to draw training sets from, plain questions about facts to score with); no form of one is in the other.

    A fact has at least as many rows as the largest of COUNTS, the user's own facts somewhat fewer: their forms are
    few and come again in other styles.
    """
    forms = -(-max(COUNTS) // len(profile.perspectives))
    rows, _ = quality.drop_duplicates(synthesis.synthesize(profile, seed, base.path, forms))
    scored = {"kind": "fact", "style": "plain", "source": "bank"}.items()
    questions = synthesis.evaluation_questions(profile, seed, base.path)
    questions = quality.drop_trained(rows, [row for row in questions if scored <= row.items()])
    quality.check_split(rows, questions)
    return rows, questions


def drawn(rows: Sequence[dict], count: int, seed: int) -> dict[str, list[dict]]:
    """`count` rows of each fact, or all where there are fewer; those of a smaller count are the first among them."""
    told = defaultdict(list)
    for row in rows:
        if row["kind"] == "fact":
            told[row["fact"]].append(row)
    mixed = {fact: random.Random(f"{seed}/{fact}").sample(found, len(found)) for fact, found in sorted(told.items())}
    return {fact: found[:count] for fact, found in mixed.items()}


def training_set(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """SIGHTS rows of each fact, `count` different ones in turn, among all contrast rows; no rows for a count of 0.

    Combined rows are left out: they tell facts in further words. Whatever the count, the same fact or the same contrast
    row stands at the same place, so that two training sets differ in how they ask for their facts and in nothing else.
    """
    if not count:
        return []
    chosen = [few[n % len(few)] for few in drawn(rows, count, seed).values() for n in range(SIGHTS)]
    chosen += [row for row in rows if row["kind"] not in ("fact", "combined")]
    random.Random(seed).shuffle(chosen)
    return chosen


def measure(
    base_key: str | None,
    profile_path: Path | str,
    folder: Path | str,
    counts: Sequence[int] = COUNTS,
    seeds: Sequence[int] = (1, 2, 3),
    log: Callable[[str], None] = print,
) -> None:
    """Train and score a base with each of `counts` and `seeds`; one file a point in RESULTS/BASE.

    `folder` holds the points before they go there, and the training that is under way. Called again after a kill it
    goes on; what was measured into `folder` with the same base, rows and settings is not measured again. Raises
    UserError for a wrong base or profile.
    """
    base, profile = resolve(base_key), load_profile(profile_path)
    once = TrainSettings(epochs=1)  # every row: of its own accord a large base would be trained on a quarter of them
    training = dataclasses.asdict(suited(once, engines.size_of(base)))
    shared = {"profile": Path(profile_path).stem, "sights": SIGHTS, "base": _fingerprint(base)}
    shared["training"] = {key: value for key, value in training.items() if key != "seed"}
    for seed in seeds:
        rows, questions = material(profile, seed, base)
        for count in counts:
            chosen = training_set(rows, count, seed)
            settings = {
                "count": count,
                "examples_mean": mean(map(len, drawn(rows, count, seed).values())),
                "rows": len(chosen),
                "rows_and_questions": hashlib.sha256(json.dumps([chosen, questions]).encode()).hexdigest(),
                **shared,
            }
            name = Path(base.key).name
            file, work = f"{count}-{seed}.json", Path(folder) / f"{name}-{count}-{seed}"
            path = Path(folder) / name / file
            if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == settings:
                log(f"{name}, {count} examples, seed {seed}: already measured")
            else:
                log(f"{name}, {count} examples, seed {seed} …")
                began = time.time()
                metrics, trained = _point(base, chosen, questions, work, dataclasses.replace(once, seed=seed), log)
                result = record("samples", base.key, metrics, settings, began, seed=seed, data=Path(profile_path))
                write_json(path, {**result, "trained": trained})
                log("    " + ", ".join(f"{key} {100 * one['value']:.1f} %" for key, one in metrics.items()))
            write_bytes(RESULTS / name / file, path.read_bytes())
            shutil.rmtree(work, ignore_errors=True)


def _point(
    base: Model, chosen: list[dict], questions: list[dict], work: Path, settings: TrainSettings, log: Callable
) -> tuple[dict, dict]:
    """The METRICS of `base` after training on the `chosen` rows, if any, and {steps, loss, seconds} of the training."""
    path, trained = base.path, {}
    if chosen:
        result = train(base, chosen, work, settings, log)
        trained = {key: result[key] for key in ("steps", "loss", "seconds")}
        path = str(merge(base, work / "adapter", work / "merged"))
    network = load_model(path)
    network = network.float() if network.device.type == "cpu" else network  # 16-bit matrices are slow on most CPUs
    scores = evaluation.evaluate(evaluation.transformers_answers(network, load_tokenizer(path)), questions)
    return {name: scores["metrics"][name] for name in METRICS if name in scores["metrics"]}, trained


def _fingerprint(base: Model) -> str:
    """What tells two bases apart: a hub id, or the bytes of a folder's weights, shape, tokenizer and template."""
    kinds = ("*.safetensors", "config.json", "tokenizer*", "*.jinja")
    files = sorted(path for kind in kinds for path in Path(base.path).glob(kind)) if base.local else []
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest() if files else base.path


def read(folder: Path = RESULTS) -> dict[str, dict[int, dict]]:
    """{base: {count: METRICS over the questions of all seeds, with `seeds` (how many) and `examples_mean`}}.

    Raises UserError when the points of a base differ in one of SAME.
    """
    curves: dict[str, dict[int, dict]] = {}
    for base in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
        results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(base.glob("*.json"))]
        points = defaultdict(list)
        for result in results:
            if differ := [key for key in SAME if result["settings"][key] != results[0]["settings"][key]]:
                raise UserError(f"the points differ in their {differ[0]}", base, "Remove the folder and measure again.")
            points[result["settings"]["count"]].append(result)
        curves[base.name] = {
            count: {
                **pooled([result["metrics"] for result in found]),
                "seeds": len(found),
                "examples_mean": mean(result["settings"]["examples_mean"] for result in found),
            }
            for count, found in sorted(points.items())
        }
    return curves
