"""What every base takes in every quantisation on this computer: file, memory, load time, speed.

The files have the true shapes and random weights: none of these numbers depends on the values of the weights.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from helpers import gguf_sizes, shapes, speed
from helpers.errors import UserError
from helpers.files import write_json
from helpers.gguf_header import metadata_bytes
from helpers.models import DEFAULT, MODELS, ROOT, Model
from helpers.results import hardware, packages, record
from helpers.toolchain import cache_dir

RESULTS = ROOT / "data" / "results" / "footprint"
QUANTS = gguf_sizes.SIZED
THREADS = (1, 2)
CONTEXT = 2048  # tokens
CONTEXTS = (512, 2048, 8192)  # tokens at which memory alone is measured, in q8_0
REPEATS = 3
LARGEST = 2_000_000_000  # parameters: what is larger is computed, not measured
WORKSPACE_MB = 60  # llama.cpp's buffers for a batch of 512 tokens
RUNTIME_MB = 50  # Python, numpy and the library before any file is opened


def measured_models() -> list[Model]:
    """The registry's models that are measured; the others' numbers are computed."""
    return [model for model in MODELS.values() if model.parameters <= LARGEST]


def spread(values: Sequence[float]) -> dict:
    """{"value": the median, "n", "low": the least, "high": the most} of repeated measurements."""
    return {
        "value": round(statistics.median(values), 4),
        "n": len(values),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
    }


def _run(path: Path, threads: int, context: int) -> dict:
    command = [sys.executable, "-m", "helpers.speed", str(path), str(threads), str(context)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 2:
        raise UserError(done.stderr.strip(), None, "See what would fit with a smaller --base or --quant.")
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def measure(model: Model, quant: str, folder: Path, repeats: int = REPEATS, threads: Iterable[int] = THREADS) -> dict:
    """The result of one base and quantisation; the file is made in `folder` where it is not there yet.

    Every repeat is two processes for each number of threads: in the first the file has to come from the disk, in the
    second it is in the operating system's cache. Raises UserError where memory or disk is short.
    """
    began = time.time()
    path = shapes.gguf(model, quant, folder)
    runs: dict[int, list[dict]] = {count: [] for count in threads}
    loads: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        for place, (count, found) in enumerate(runs.items()):
            if place == 0:
                speed.evict(path)
            found.append(_run(path, count, CONTEXT))
            loads["warm" if place else "cold"].append(found[-1]["load_s"])
    everything = [run for found in runs.values() for run in found]
    metrics = {f"load_{state}_s": spread(values) for state, values in loads.items() if values}
    metrics |= {name: spread([run[name] for run in everything]) for name in ("peak_ram_mb", "runtime_mb")}
    for count, found in runs.items():
        for name in ("prompt_tokens_per_s", "first_token_s", "tokens_per_s", "bare_tokens_per_s"):
            metrics[f"{name}_{count}"] = spread([run[name] for run in found])
        metrics[f"of_bare_{count}"] = spread([run["tokens_per_s"] / run["bare_tokens_per_s"] for run in found])
        metrics[f"bandwidth_mb_per_s_{count}"] = spread([speed.bandwidth(count) / 1e6])
    result = record(
        "footprint",
        model.key,
        metrics,
        _settings(model, quant, repeats),
        began,
        seed=0,
        peak_mb=metrics["peak_ram_mb"]["high"],
    )
    return result | {"file": {"bytes": path.stat().st_size, "metadata_bytes": metadata_bytes(path)}}


def measure_contexts(model: Model, folder: Path) -> dict:
    """Peak memory of the q8_0 file for each of CONTEXTS that the model allows."""
    began = time.time()
    path = shapes.gguf(model, "q8_0", folder)
    metrics = {
        f"peak_ram_mb_{context}": spread([_run(path, THREADS[-1], context)["peak_ram_mb"]])
        for context in CONTEXTS
        if context <= model.shape.context
    }
    peak = max(metric["value"] for metric in metrics.values())
    return record("contexts", model.key, metrics, _settings(model, "q8_0", 1), began, seed=0, peak_mb=peak)


def _settings(model: Model, quant: str, repeats: int) -> dict:
    return {
        "quant": quant,
        "repeats": repeats,
        "context": CONTEXT,
        "prompt_tokens": speed.PROMPT_TOKENS,
        "new_tokens": speed.NEW_TOKENS,
        "weights": "its own" if model.key == DEFAULT else "random",
    }


def _known(path: Path, settings: dict) -> dict | None:
    """A stored result that was measured with these settings, this llama.cpp and this machine; None otherwise."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    same = found["settings"] == settings and found["hardware"] == hardware()
    name = "llama-cpp-python"
    return found if same and found["packages"].get(name) == packages().get(name) else None


def footprint(
    models: Iterable[Model],
    quants: Iterable[str] = QUANTS,
    again: bool = False,
    log: Callable[[str], None] = print,
    results: Path = RESULTS,
    repeats: int = REPEATS,
) -> list[dict]:
    """Measure each base in each quantisation into `results`, one file a setting; returns the results.

    What this machine has measured already is not measured again, so that a killed run goes on; `again` does it anew.
    The GGUF files are removed when a base is done. Raises UserError for a base that is too large to be measured.
    """
    found, folder = [], cache_dir() / "footprint"
    for model in models:
        if model.shape is None or model.parameters > LARGEST:
            fit = ", ".join(other.key for other in measured_models())
            raise UserError(f"{model.key} is not measured, its sizes are computed", "--base", f"Use one of {fit}.")
        jobs = {quant: (results / f"{model.key}-{quant}.json", quant, repeats) for quant in quants}
        if set(QUANTS) <= set(jobs):
            jobs["contexts"] = (results / f"{model.key}-contexts.json", "q8_0", 1)
        for name, (path, quant, times) in jobs.items():
            result = None if again else _known(path, _settings(model, quant, times))
            if result is None:
                log(f"{model.key} {name}: measuring …")
                contexts = name == "contexts"
                result = measure_contexts(model, folder) if contexts else measure(model, quant, folder, times)
                write_json(path, result)
                if quant not in ("f16", "q8_0"):  # these are needed once more
                    (folder / f"{model.key}-{quant}.gguf").unlink()
            found.append(result)
            log(f"{model.key} {name}: {told(result)}")
        for path in folder.glob(f"{model.key}-*.gguf"):
            path.unlink()
    return found


def told(result: dict) -> str:
    """A result in one line."""
    metrics = result["metrics"]
    if result["benchmark"] == "contexts":
        return ", ".join(f"{name.rpartition('_')[2]} tokens {m['value']:.0f} MB" for name, m in metrics.items())
    speeds = " / ".join(f"{metrics[f'tokens_per_s_{count}']['value']:.1f}" for count in THREADS)
    threads = " / ".join(map(str, THREADS))
    return (
        f"{result['file']['bytes'] / 1e6:.1f} MB, loads in {metrics['load_cold_s']['value']:.2f} s, takes "
        f"{metrics['peak_ram_mb']['value']:.0f} MB of memory, {speeds} tokens/s with {threads} threads"
    )


def memory_mb(shape, quant: str, file: int, context: int) -> float:
    """Peak memory by formula: file, key/value cache, llama.cpp's buffers, Python."""
    return (file + gguf_sizes.kv_bytes(shape, context)) / 1e6 + WORKSPACE_MB + RUNTIME_MB


def read(folder: Path = RESULTS) -> list[dict]:
    """One flat row for each base, quantisation and number of threads, for `constraints` and the plots.

    Measured rows hold medians. The rows of the models that are too large to be measured here have `measured` False,
    sizes from their shapes, memory by `memory_mb` and no speeds.
    """
    rows, metadata = [], {}
    for model in measured_models():
        for quant in QUANTS:
            path = folder / f"{model.key}-{quant}.json"
            if not path.is_file():
                continue
            result = json.loads(path.read_text(encoding="utf-8"))
            metrics = result["metrics"]
            metadata[shapes.VOCABULARIES.get(model.shape.vocabulary)] = result["file"]["metadata_bytes"]
            shared = {name: metrics[name]["value"] for name in ("load_cold_s", "load_warm_s", "peak_ram_mb")}
            for count in THREADS:
                names = ("prompt_tokens_per_s", "first_token_s", "tokens_per_s")
                speeds = {name: metrics[f"{name}_{count}"]["value"] for name in names}
                rows.append(_row(model, quant, count, result["file"]["bytes"]) | shared | speeds | {"measured": True})
    for model in MODELS.values():
        if model.parameters > LARGEST and shapes.VOCABULARIES[model.shape.vocabulary] in metadata:
            for quant in QUANTS:
                told = metadata[shapes.VOCABULARIES[model.shape.vocabulary]]
                file = gguf_sizes.file_bytes(model.shape, quant, told)
                memory = round(memory_mb(model.shape, quant, file, CONTEXT), 1)
                names = ("load_cold_s", "load_warm_s", "prompt_tokens_per_s", "first_token_s", "tokens_per_s")
                row = _row(model, quant, THREADS[-1], file) | {"peak_ram_mb": memory} | dict.fromkeys(names)
                rows.append(row | {"measured": False})
    return rows


def _row(model: Model, quant: str, threads: int, file: int) -> dict:
    return {
        "model": model.key,
        "quant": quant,
        "threads": threads,
        "file_mb": round(file / 1e6, 1),
        "licence": model.licence,
    }
