"""Measured footprints: true numbers, one file a setting, nothing measured twice, what is too large refused."""

from __future__ import annotations

import functools
import json

import pytest
from tiny import make_tokenizer

from helpers import footprint, gguf_sizes, shapes, speed
from helpers.errors import UserError
from helpers.export import to_gguf
from helpers.models import MODELS, ROOT, Model, Shape

# Published sizes in MB (10^6 bytes) of files that others have made from the real weights.
PUBLISHED = {
    ("smollm2-135m", "q8_0"): 145,
    ("smollm2-135m", "q4_k_m"): 105,
    ("smollm2-360m", "q8_0"): 386,
    ("smollm2-360m", "q4_k_m"): 271,
    ("smollm2-360m", "q5_k_m"): 290,
    ("smollm2-360m", "q4_0"): 230,
    ("qwen2.5-0.5b", "q4_k_m"): 398,
    ("llama-3.2-1b", "q4_k_m"): 808,
    ("llama-3.2-1b", "q8_0"): 1320,
}


@pytest.fixture
def tiny_gguf(tiny_base, tmp_path):
    return to_gguf(tiny_base, tmp_path / "tiny.gguf")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A registry of one small model beside the large ones, and a cache of its own."""
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    shape = Shape("llama", 2, 64, 160, 4, 2, len(tokenizer), 1024, 1e4)
    parameters = sum(size[0] * (size[1] if len(size) == 2 else 1) for _, size in gguf_sizes.tensors(shape))
    model = Model("small", "nowhere", "MIT", parameters, shape=shape)
    monkeypatch.setattr(shapes, "tokenizer", lambda _: tokenizer)
    monkeypatch.setattr(footprint, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(footprint, "MODELS", {"small": model})
    monkeypatch.setitem(MODELS, "small", model)
    return model


# -- the measurement


def test_a_measurement_is_of_the_file(tiny_gguf):
    speed.evict(tiny_gguf)
    found = speed.measure(tiny_gguf, threads=1, context=256 + 64)
    assert all(value > 0 for value in found.values()) and found["peak_ram_mb"] >= found["runtime_mb"]
    assert 0.2 < found["first_token_s"] * found["prompt_tokens_per_s"] / speed.PROMPT_TOKENS < 5  # the same work
    assert 0.2 < found["tokens_per_s"] / found["bare_tokens_per_s"] < 2  # a tiny model is mostly overhead


def test_bandwidth_is_that_of_memory():
    assert 1e9 < speed.bandwidth(1, size=40_000_000, repeats=2) < 1e12


# -- the files


def test_every_setting_has_its_file_and_nothing_is_measured_twice(small, tmp_path, monkeypatch):
    results = tmp_path / "results"
    monkeypatch.setattr(footprint, "QUANTS", ("f16", "q8_0", "q4_0"))
    run = functools.partial(
        footprint.footprint, quants=footprint.QUANTS, log=lambda line: None, results=results, repeats=1
    )
    found = run([small], tmp_path / "run")
    names = {f"small-{quant}.json" for quant in (*footprint.QUANTS, "contexts")}
    assert {path.name for path in results.iterdir()} == names and len(found) == len(names)
    for quant in footprint.QUANTS:
        result = json.loads((results / f"small-{quant}.json").read_text())
        size = gguf_sizes.file_bytes(small.shape, quant, result["file"]["metadata_bytes"])
        assert result["file"]["bytes"] == size and result["settings"]["weights"] == "random"
        assert result["metrics"]["tokens_per_s_2"]["n"] == 1 and result["metrics"]["peak_ram_mb"]["n"] == 2
    assert not list((tmp_path / "cache" / "footprint").glob("*.gguf"))  # gigabytes, with real models
    monkeypatch.setattr(footprint, "_run", lambda *_: pytest.fail("measured again"))
    (results / "small-q4_0.json").unlink()
    assert run([small], tmp_path / "run") == found and (results / "small-q4_0.json").is_file()
    with pytest.raises(pytest.fail.Exception):
        run([small], tmp_path / "another run")


def test_a_stopped_run_goes_on(small, tmp_path, monkeypatch):
    run, count = footprint._run, []

    def third_time_out(*arguments):
        count.append(arguments)
        if len(count) == 3:
            raise KeyboardInterrupt
        return run(*arguments)

    monkeypatch.setattr(footprint, "_run", third_time_out)
    with pytest.raises(KeyboardInterrupt):
        footprint.footprint([small], tmp_path / "run", ["f16", "q8_0"], results=tmp_path, repeats=1)
    assert [path.name for path in tmp_path.glob("small-*")] == ["small-f16.json"]
    footprint.footprint([small], tmp_path / "run", ["f16", "q8_0"], results=tmp_path, repeats=1)
    assert len(count) == 3 + 2  # the second setting's two processes; the first setting is not measured again


def test_a_result_of_another_machine_or_llama_cpp_does_not_count(tmp_path, monkeypatch):
    settings = footprint._settings(MODELS["pocket"], "q8_0", 3)
    stored = {"settings": settings, "hardware": footprint.hardware(), "packages": footprint.packages()}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(stored))
    assert footprint._known(path, settings) == stored and footprint._known(path, settings | {"repeats": 4}) is None
    for change in ({"hardware": {"cpu": "another"}}, {"packages": {"llama-cpp-python": "0.0.1"}}):
        path.write_text(json.dumps(stored | change))
        assert footprint._known(path, settings) is None


def test_what_cannot_be_measured_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="llama-3.1-8b is not measured"):
        footprint.footprint([MODELS["llama-3.1-8b"]], tmp_path / "run", results=tmp_path)
    monkeypatch.setattr("helpers.llama_cpu.free_memory", lambda: 800_000_000)
    with pytest.raises(
        UserError, match=r"needs 3\.7 GB of memory to be built, 0\.8 GB are free.*smollm2-135m would fit"
    ):
        shapes.gguf(MODELS["llama-3.2-1b"], "q8_0", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_too_large_for_the_memory_is_refused_before_it_is_loaded(tiny_gguf):
    with open(tiny_gguf, "ab") as file:
        file.truncate(10**12)  # a hole: takes no room on the disk
    with pytest.raises(UserError, match=r"tiny\.gguf: needs about 100\d+ MB of memory, \d+ MB are free") as caught:
        footprint._run(tiny_gguf, 1, 512)
    assert "\n" not in str(caught.value) and ".." not in str(caught.value)


def test_a_process_that_fails_is_named_by_its_file(tiny_gguf, monkeypatch):
    monkeypatch.setattr(footprint.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"tiny\.gguf"):
        footprint._run(tiny_gguf, 1, 512)


# -- what is stored


@pytest.mark.parametrize(("key", "quant"), PUBLISHED)
def test_sizes_are_the_published_ones(key, quant):
    rows = [row for row in footprint.read() if (row["model"], row["quant"]) == (key, quant)]
    assert rows and all(abs(row["file_mb"] / PUBLISHED[key, quant] - 1) < 0.02 for row in rows)


def test_every_model_and_quantisation_has_its_row():
    rows = footprint.read()
    assert {(row["model"], row["quant"]) for row in rows} == {(key, q) for key in MODELS for q in footprint.QUANTS}
    for row in rows:
        assert row["licence"] == MODELS[row["model"]].licence and row["peak_ram_mb"] > row["file_mb"]
        assert row["measured"] == (row["tokens_per_s"] is not None)


@pytest.fixture(scope="module")
def stored():
    results = [json.loads(path.read_text()) for path in footprint.RESULTS.glob("*.json")]
    results = [result for result in results if result["benchmark"] == "footprint"]
    assert len(results) == 5 * len(footprint.QUANTS)
    return results


def test_stored_sizes_follow_from_the_shapes(stored):
    for result in stored:
        shape, quant = MODELS[result["model"]].shape, result["settings"]["quant"]
        size = gguf_sizes.file_bytes(shape, quant, result["file"]["metadata_bytes"])
        assert size == result["file"]["bytes"], (result["model"], quant)


def test_our_measuring_costs_nothing(stored):
    """Through LocalLLM a file is as fast as llama.cpp's decode calls alone, within 10 per cent."""
    for result in stored:
        for count in footprint.THREADS:
            ratio = result["metrics"][f"of_bare_{count}"]["value"]
            assert 0.9 < ratio < 1.1, (result["model"], result["settings"]["quant"], count)


def test_the_memory_formula_holds_for_what_was_measured():
    errors = footprint.formula_errors()
    assert len(errors) == 5 * len(footprint.QUANTS) + 2 + 4 * len(footprint.CONTEXTS)  # pocket ends at 2,048 tokens
    assert max(map(abs, errors.values())) < 0.06


def test_a_half_billion_parameters_below_300_mb():
    assert any(r["file_mb"] < 300 for r in footprint.read() if r["model"] == "qwen2.5-0.5b")


@pytest.mark.parametrize(
    ("key", "quant"),
    [("smollm2-135m", "q8_0"), ("smollm2-360m", "q5_k_m"), ("qwen2.5-0.5b", "q4_0_all"), ("llama-3.2-1b", "q4_k_m")],
)
def test_the_readme_repeats_what_is_stored(key, quant):
    row = next(r for r in footprint.read() if (r["model"], r["quant"], r["threads"]) == (key, quant, 2))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    told = f"{row['file_mb']:.0f} MB, {row['peak_ram_mb']:,.0f} MB, {row['tokens_per_s']:.0f} tokens/s"
    assert told in text.replace(" of memory", "")
