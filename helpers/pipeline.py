"""The whole path, one step after the other: profile -> dataset -> adapter -> merged model -> GGUF -> scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import evaluation, quality, synthesis
from helpers.contrast import CONTRAST
from helpers.engines import size_of
from helpers.errors import UserError
from helpers.files import peak_ram_mb, read_jsonl, sha256, write_bytes, write_json, write_jsonl, write_text
from helpers.models import Model, load_model, load_tokenizer, resolve
from helpers.phrasings import BANK
from helpers.profile import Profile, load_profile
from helpers.results import record
from helpers.training import TrainSettings, suited, train

Log = Callable[[str], None]
STEPS = ("dataset", "before", "training", "merge", "after", "gguf", "report")


class Run:
    """A run folder. A step is done when `steps.json` holds its key, which depends on all that came before it."""

    def __init__(self, folder: Path, key: str, log: Log):
        self.folder, self.key, self.log = folder, key, log
        self.state = folder / "steps.json"
        self.profile: Profile | None = None
        self.model: Model | None = None
        self.work: dict[str, tuple[Callable[[], object], list[str]]] = {}  # step: what it does, the files it leaves

    def _read(self) -> dict[str, dict]:
        try:
            done = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return (
            {name: entry for name, entry in done.items() if isinstance(entry, dict)} if isinstance(done, dict) else {}
        )

    def _key(self, name: str) -> str:
        key = self.key
        for step in STEPS[: STEPS.index(name) + 1]:
            key = hashlib.sha256(f"{key}/{step}".encode()).hexdigest()[:16]
        return key

    def do(self, name: str) -> None:
        """Do one of STEPS, unless it is done. Raises UserError when a step before it is not."""
        done = self._read()
        for earlier in STEPS[: STEPS.index(name)]:
            if done.get(earlier, {}).get("key") != self._key(earlier):
                raise UserError(f"step {name!r} needs step {earlier!r}", self.folder, f"Do {earlier!r} first.")
        self.step(name, *self.work[name])

    def step(self, name: str, work: Callable[[], object], outputs: list[str]) -> None:
        """Do `work` unless it is done; a kill at any moment leaves the step to be done again, never half counted."""
        key, done = self._key(name), self._read()
        title = f"[{STEPS.index(name) + 1}/{len(STEPS)}] {name}"
        if done.get(name, {}).get("key") == key and all((self.folder / path).exists() for path in outputs):
            self.log(f"{title}: already done")
            return
        self.log(f"{title} …")
        began = time.time()
        work()
        done[name] = {"key": key, "seconds": round(time.time() - began, 1), "peak_ram_mb": round(peak_ram_mb())}
        write_json(self.state, done)
        self.log(f"{title}: {done[name]['seconds']:.0f} s")

    def result(self, name: str) -> dict:
        return json.loads((self.folder / "results" / f"{name}.json").read_text(encoding="utf-8"))


def personalize(
    profile_path: Path | str,
    out_dir: Path | str,
    base: str | None = None,
    seed: int = 1,
    log: Log = print,
    settings: TrainSettings | None = None,
    quant: str = "q8_0",
) -> dict:
    """Turn a profile into a chat-ready GGUF file in `out_dir`; returns {step: {seconds, peak_ram_mb}}.

    Called again after a kill, or with the same input, it goes on where it was. Raises UserError before anything is
    written when the profile or the base is wrong or the machine is too small.
    """
    run = begin(profile_path, out_dir, base, seed, log, settings, quant)
    for name in STEPS:
        run.do(name)
    return json.loads(run.state.read_text(encoding="utf-8"))


def begin(
    profile_path: Path | str,
    out_dir: Path | str,
    base: str | None = None,
    seed: int = 1,
    log: Log = print,
    settings: TrainSettings | None = None,
    quant: str = "q8_0",
) -> Run:
    """Check the input and open the run folder; the steps are then taken one at a time with `run.do(name)`."""
    profile = load_profile(profile_path)
    model = resolve(base)
    _check_memory(model)
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise UserError("is a file, not a folder", out, "Choose another --out.")
    settings = dataclasses.replace(settings or TrainSettings(), seed=seed)
    data = Path(profile_path).read_bytes()
    decided = dataclasses.asdict(suited(settings, size_of(model)))
    inputs = [hashlib.sha256(data).hexdigest(), _fingerprint(model), seed, quant, decided]
    inputs += [_contents(BANK), synthesis.FORMS, CONTRAST]
    run = Run(out, hashlib.sha256(json.dumps(inputs).encode()).hexdigest(), log)
    write_bytes(out / "profile.yaml", data)

    run.profile, run.model = profile, model
    run.work = {
        "dataset": (lambda: _dataset(run, profile, model, seed), ["dataset/train.jsonl", "dataset/eval.jsonl"]),
        "before": (lambda: _score(run, "before", model.path, model, seed, str(model.path)), ["results/before.json"]),
        "training": (
            lambda: train(model, read_jsonl(out / "dataset" / "train.jsonl"), out, settings, log),
            ["adapter/adapter_model.safetensors"],
        ),
        "merge": (lambda: _merge(run, model), ["merged/config.json"]),
        "after": (lambda: _score(run, "after", out / "merged", model, seed, "merged"), ["results/after.json"]),
        "gguf": (lambda: _gguf(run, profile, model, quant, seed), [f"gguf/model-{quant}.gguf", "Modelfile"]),
        "report": (lambda: _report(run, profile, model, quant), ["report.md"]),
    }
    return run


def _check_memory(model: Model) -> None:
    import psutil

    total = psutil.virtual_memory().total / 1e9
    if model.min_ram_gb > total:
        raise UserError(
            f"{model.key} needs {model.min_ram_gb:g} GB of memory, this machine has {total:.1f} GB",
            "--base",
            "Choose a smaller base.",
        )


def _fingerprint(model: Model) -> str:
    """What tells two bases apart: a hub id, or the names and bytes of a folder's files."""
    return _contents(Path(model.path)) if model.local else model.path


def _contents(folder: Path) -> str:
    """A hash of the names and bytes of a folder's files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256("".join(f"{path.name}{sha256(path)}" for path in files).encode()).hexdigest()


def _dataset(run: Run, profile: Profile, model: Model, seed: int) -> None:
    folder = run.folder / "dataset"
    rows, dropped = quality.drop_duplicates(synthesis.synthesize(profile, seed, model.path))
    quality.check_rows(rows, "training rows")
    questions = quality.drop_trained(rows, synthesis.evaluation_questions(profile, seed, model.path))
    quality.check_rows(questions, "evaluation rows")
    quality.check_split(rows, questions)
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "eval.jsonl", questions)
    write_text(folder / "README.md", quality.dataset_card(rows, questions))
    run.log(
        f"    {len(rows)} rows to train on ({dropped['exact'] + dropped['near']} doubles dropped), "
        f"{len(questions)} questions to score with"
    )


def _score(run: Run, name: str, path: Path | str, model: Model, seed: int, label: str) -> None:
    """Score a transformers model on the evaluation questions into results/NAME.json."""
    began = time.time()
    questions = run.folder / "dataset" / "eval.jsonl"
    tokenizer, network = load_tokenizer(str(path)), load_model(str(path))
    network = network.float() if network.device.type == "cpu" else network  # 16-bit matrices are slow on most CPUs
    scores = evaluation.evaluate(evaluation.transformers_answers(network, tokenizer), read_jsonl(questions))
    _write(run, name, scores, model, label, began, seed, questions)


def _write(run: Run, name: str, scores: dict, model: Model, label: str, began: float, seed: int, data: Path) -> None:
    result = record(name, model.key, scores["metrics"], {"engine": label}, began, seed=seed, data=data)
    result |= {key: scores[key] for key in ("by_fact", "by_style", "answers")}
    write_json(run.folder / "results" / f"{name}.json", result)
    told = scores["metrics"]
    shown = [
        f"{key} {100 * told[key]['value']:.1f} %"
        for key in ("recall_base", "recall_heldout", "abstention", "leaks", "general")
        if key in told
    ]
    run.log("    " + ", ".join(shown))


def _merge(run: Run, model: Model) -> None:
    from helpers.export import merge

    merge(model, run.folder / "adapter", run.folder / "merged")


def _gguf(run: Run, profile: Profile, model: Model, quant: str, seed: int) -> None:
    """Convert, quantise, verify; then ask llama.cpp the fact questions that the merged model was asked."""
    from helpers.export import adapter_to_gguf, export_gguf
    from helpers.local_llm import LocalLLM
    from helpers.runs import probes

    began = time.time()
    folder, questions = run.folder / "gguf", run.folder / "dataset" / "eval.jsonl"
    rows = read_jsonl(questions)
    shutil.rmtree(folder, ignore_errors=True)  # files of an earlier profile must not pass for this one's
    with ThreadPoolExecutor(1) as pool:  # both converters are processes that mostly start up
        adapter = pool.submit(adapter_to_gguf, model, run.folder / "adapter", folder / "adapter.gguf")
        export_gguf(run.folder / "merged", folder, quant, probes(run.folder), log=lambda line: run.log(f"    {line}"))
        adapter.result()
    with LocalLLM(folder / f"model-{quant}.gguf") as llm:
        scores = evaluation.evaluate(evaluation.gguf_answers(llm), [row for row in rows if row["kind"] == "fact"])
    _write(run, "gguf", scores, model, f"llama.cpp {quant}", began, seed, questions)
    write_text(run.folder / "Modelfile", _modelfile(profile, model, quant))


def _modelfile(profile: Profile, model: Model, quant: str) -> str:
    """Ollama's recipe; the chat template is the one inside the GGUF file."""
    stops = list(model.stop_tokens) + ([profile.style.stop] if profile.style and profile.style.stop else [])
    quoted = [json.dumps(text, ensure_ascii=False) for text in stops]
    return (
        "\n".join(
            [
                f"FROM ./gguf/model-{quant}.gguf",
                f'SYSTEM """{profile.system_prompt}"""',
                "PARAMETER temperature 0",
                *(f"PARAMETER stop {text}" for text in quoted),
            ]
        )
        + "\n"
    )


def _report(run: Run, profile: Profile, model: Model, quant: str) -> None:
    """Plots and a page that tells what came out, drawn from the results files."""
    from helpers import plots

    before, after, gguf = (run.result(name) for name in ("before", "after", "gguf"))
    training = json.loads((run.folder / "adapter" / "training.json").read_text(encoding="utf-8"))
    folder = run.folder / "plots"
    plots.loss_curve(training["history"], folder / "loss.png")
    plots.before_after(before["metrics"], after["metrics"], folder / "before_after.png")
    plots.recall_by(after["by_fact"], "fact", folder / "recall_by_fact.png")
    plots.recall_by(after["by_style"], "style", folder / "recall_by_style.png")
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted((run.folder / "gguf").glob("*.gguf"))}
    plots.sizes(sizes, folder / "sizes.png")
    lines = [
        f"# {profile.assistant}",
        "",
        f"Base: {model.key}. Questions: {sum(1 for _ in after['answers'])}.",
        "",
        "| score | before | after | n | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for name, metric in after["metrics"].items():
        old = before["metrics"].get(name)
        low, high = metric["ci95"]
        lines.append(
            f"| {name} | {_percent(old)} | {_percent(metric)} | {metric['n']} | {100 * low:.1f}-{100 * high:.1f} % |"
        )
    kept = evaluation.retention(before["metrics"], after["metrics"])
    lines += [
        "",
        f"General knowledge kept: {100 * kept:.1f} % of the base's own score." if kept else "",
        "",
        f"The {quant} file in llama.cpp: recall {_percent(gguf['metrics']['recall_base'])} on forms the base knew, "
        f"{_percent(gguf['metrics']['recall_heldout'])} on forms nobody saw.",
        "",
        *(f"- {name}: {size:.1f} MB" for name, size in sizes.items()),
        "",
    ]
    lines += [f"![{path.stem}](plots/{path.name})" for path in sorted(folder.glob("*.png"))]
    write_text(run.folder / "report.md", "\n".join(lines) + "\n")


def _percent(metric: dict | None) -> str:
    return "-" if metric is None or metric["value"] is None else f"{100 * metric['value']:.1f} %"
