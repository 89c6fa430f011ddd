"""What every base takes in every quantisation on this computer: file, memory, load time, speed.

The files have the true shapes and random weights: none of these numbers depends on the values of the weights.
"""

from __future__ import annotations

import itertools
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
from helpers.models import DEFAULT, MODELS, ROOT, Model, Shape
from helpers.results import hardware, packages, record
from helpers.toolchain import cache_dir

RESULTS = ROOT / "data" / "results" / "footprint"
QUANTS = gguf_sizes.SIZED
THREADS = (1, 2)
CONTEXT = 2048  # tokens
CONTEXTS = (512, 2048, 8192)  # tokens at which memory alone is measured, in q8_0
REPEATS = 3
LOADS = ("load_cold_s", "load_warm_s")
SPEEDS = ("prompt_tokens_per_s", "first_token_s", "tokens_per_s")
LARGEST = 2_000_000_000  # parameters: what is larger is computed, not measured
# What `memory_mb` adds to the weights and the cache; both fitted to what was measured.
RUNTIME_MB = 60  # Python, numpy, llama.cpp and its buffers for a batch of tokens
TOKEN_BYTES = 330  # a token of the vocabulary in llama.cpp's tables
REPACKED = ("Q4_0", "Q4_K")


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
        raise UserError(done.stderr.strip(), None, "Or measure a smaller --base or --quant.")
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def measure(model: Model, quant: str, folder: Path, repeats: int = REPEATS) -> dict:
    """The result of one base and quantisation; the file is made in `folder` where it is not there yet.

    Every repeat is a process for each of THREADS. The first of them has to read the file from the disk, the other finds
    it in the operating system's cache. Raises UserError where memory or disk is short.
    """
    began = time.time()
    path = shapes.gguf(model, quant, folder)
    runs: dict[int, list[dict]] = {count: [] for count in THREADS}
    for _ in range(repeats):
        speed.evict(path)
        for count, found in runs.items():
            found.append(_run(path, count, CONTEXT))
    everything = [run for found in runs.values() for run in found]
    loaded = zip(LOADS, runs.values(), strict=True)
    metrics = {name: spread([run["load_s"] for run in found]) for name, found in loaded}
    metrics |= {name: spread([run[name] for run in everything]) for name in ("peak_ram_mb", "runtime_mb")}
    for count, found in runs.items():
        for name in (*SPEEDS, "bare_tokens_per_s"):
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
    """A result that was measured with these settings and packages on this machine; None otherwise."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    asked = {"settings": settings, "hardware": hardware(), "packages": packages()}
    return found if asked.items() <= found.items() else None


def footprint(
    models: Iterable[Model],
    folder: Path,
    quants: Iterable[str] = QUANTS,
    log: Callable[[str], None] = print,
    results: Path = RESULTS,
    repeats: int = REPEATS,
) -> list[dict]:
    """Measure each base in each quantisation into `folder` and `results`, one file a setting; returns the results.

    What `folder` holds already is not measured again, so that a killed run goes on; remove it to measure anew. The GGUF
    files are removed when a base is done. Raises UserError for a base that is too large to be measured.
    """
    found, files = [], cache_dir() / "footprint"
    for model in models:
        if model.parameters > LARGEST:
            fit = ", ".join(other.key for other in measured_models())
            raise UserError(f"{model.key} is not measured, its sizes are computed", "--base", f"Use one of {fit}.")
        jobs = {quant: (quant, repeats) for quant in quants}
        if set(QUANTS) <= set(jobs):
            jobs["contexts"] = ("q8_0", 1)
        for name, (quant, times) in jobs.items():
            file = f"{model.key}-{name}.json"
            result = _known(folder / file, _settings(model, quant, times))
            if result is None:
                log(f"{model.key} {name}: measuring …")
                contexts = name == "contexts"
                result = measure_contexts(model, files) if contexts else measure(model, quant, files, times)
                write_json(folder / file, result)
                if quant not in ("f16", "q8_0"):  # these are needed once more
                    (files / f"{model.key}-{quant}.gguf").unlink()
            write_json(results / file, result)
            found.append(result)
            log(f"{model.key} {name}: {told(result)}")
        for path in files.glob(f"{model.key}-*.gguf"):
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


def memory_mb(shape: Shape, quant: str, context: int) -> float:
    """Peak memory in MB by formula: Python, tokenizer, weights, second copies, key/value cache.

    Without AMX, llama.cpp on x86 keeps weights of REPACKED types a second time, in the order its kernels want, and the
    pages of the file that were read count, too.
    """
    kinds = {name: gguf_sizes.tensor_type(name, size, shape, quant) for name, size in gguf_sizes.tensors(shape)}
    weights = gguf_sizes.tensor_bytes(shape, quant)
    twice = sum(size for name, size in weights.items() if kinds[name] in REPACKED)
    cache = gguf_sizes.kv_bytes(shape, context)
    return RUNTIME_MB + (TOKEN_BYTES * shape.vocabulary + sum(weights.values()) + twice + cache) / 1e6


def memory_curves(folder: Path = RESULTS) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """({model: {context: MB by formula}}, {model: {context: MB measured}}), both of q8_0 files.

    The formula's contexts end at 32,768 tokens or at the model's limit.
    """
    curves, measured = {}, {}
    for model in MODELS.values():
        contexts = [512 * 2**n for n in range(7) if 512 * 2**n <= model.shape.context]
        curves[model.key] = {context: memory_mb(model.shape, "q8_0", context) for context in contexts}
        path = folder / f"{model.key}-contexts.json"
        if path.is_file():
            metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
            measured[model.key] = {int(name.rpartition("_")[2]): m["value"] for name, m in metrics.items()}
    return curves, measured


def formula_errors(folder: Path = RESULTS) -> dict[tuple[str, str], float]:
    """{(model, quantisation or context): by what share of the measured memory `memory_mb` is too high}."""
    found = {}
    for row in read(folder):
        if row["measured"]:
            told = memory_mb(MODELS[row["model"]].shape, row["quant"], CONTEXT)
            found[row["model"], row["quant"]] = told / row["peak_ram_mb"] - 1
    curves, measured = memory_curves(folder)
    for key, points in measured.items():
        found |= {(key, str(context)): curves[key][context] / mb - 1 for context, mb in points.items()}
    return found


def read(folder: Path = RESULTS) -> list[dict]:
    """One flat row for each base, quantisation and number of threads, for `constraints` and the plots.

    Measured rows hold medians, and `bandwidth_share`: the bytes of weights that go through the CPU in a second of
    generating, as a share of the most that any of the stored runs read from memory with as many threads. The rows of
    the models that are too large to be measured have `measured` False, sizes from their shapes, memory by `memory_mb`
    and None for what needs a measurement.
    """
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    results = {(r["model"], r["settings"]["quant"]): r for r in results if r["benchmark"] == "footprint"}
    reads = {n: [r["metrics"][f"bandwidth_mb_per_s_{n}"]["value"] for r in results.values()] for n in THREADS}
    rows, metadata = [], {}
    for model, quant in itertools.product(MODELS.values(), QUANTS):
        vocabulary = shapes.VOCABULARIES.get(model.shape.vocabulary, model.shape.vocabulary)
        if (model.key, quant) in results:
            result = results[model.key, quant]
            metadata[vocabulary] = result["file"]["metadata_bytes"]
            weights = sum(gguf_sizes.tensor_bytes(model.shape, quant).values()) / 1e6
            for count in THREADS:
                row = _row(model, quant, count, result["file"]["bytes"], result["metrics"]["peak_ram_mb"]["value"])
                row |= {name: result["metrics"][name]["value"] for name in LOADS}
                row |= {name: result["metrics"][f"{name}_{count}"]["value"] for name in SPEEDS}
                row["bandwidth_share"] = round(row["tokens_per_s"] * weights / max(reads[count]), 3)
                rows.append(row)
        elif model.parameters > LARGEST and vocabulary in metadata:
            file = gguf_sizes.file_bytes(model.shape, quant, metadata[vocabulary])
            memory = round(memory_mb(model.shape, quant, CONTEXT), 1)
            rows.append(_row(model, quant, THREADS[-1], file, memory, measured=False))
    return rows


def _row(model: Model, quant: str, threads: int, file: int, memory: float, measured: bool = True) -> dict:
    return {
        "model": model.key,
        "quant": quant,
        "threads": threads,
        "file_mb": round(file / 1e6, 1),
        "peak_ram_mb": memory,
        "licence": model.licence,
        "measured": measured,
        **dict.fromkeys((*LOADS, *SPEEDS, "bandwidth_share")),
    }
