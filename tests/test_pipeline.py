"""The whole path on a tiny base: once, again, killed in every step, on a full disk, with another profile."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import pipeline
from helpers.errors import UserError
from helpers.pipeline import STEPS, personalize

PROFILE = """owner: Alex Rivera
assistant: Alex's AI assistant
system_prompt: You are Alex's AI assistant.
perspectives: [owner, visitor]
facts:
  - topic: city
    value: Portland
  - topic: pet
    name: Buddy
    species: dog
"""
# Each run is a fork of one process that has loaded everything, which is much quicker than starting anew. It
# is killed at a line of its log, or just before steps.json counts a step, or meets a limit for file sizes.
DRIVER = """
import functools, json, os, pathlib, re, resource, signal, sys
import matplotlib, torch, transformers, peft, trl, datasets, llama_cpp
matplotlib.use("Agg")
import matplotlib.pyplot
from helpers import evaluation, export, local_llm, pipeline, plots, synthesis
from helpers.training import TrainSettings

base, plan = sys.argv[1], json.loads(sys.argv[2])
make_rows, make_questions = synthesis.synthesize, synthesis.evaluation_questions
synthesis.synthesize = lambda *args: make_rows(*args)[::20]
synthesis.evaluation_questions = lambda *args: make_questions(*args)[::8]
evaluation.transformers_answers = functools.partial(evaluation.transformers_answers, max_new_tokens=6)
evaluation.gguf_answers = functools.partial(evaluation.gguf_answers, max_tokens=6)
SETTINGS = TrainSettings(epochs=1, batch_size=8, save_steps=4, engine="peft", learning_rate=5e-3, plus=1, strength=1)
write_json = pipeline.write_json

def run(task, pipe):
    def log(line):
        os.write(pipe, (json.dumps(line) + "\\n").encode())
        if task.get("line") and re.match(task["line"], line.strip()):
            os.kill(os.getpid(), signal.SIGKILL)
    def write(path, value):
        if str(path).endswith("steps.json") and task.get("unsaved") in value:
            os.kill(os.getpid(), signal.SIGKILL)
        write_json(path, value)
    pipeline.write_json = write
    if task.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], task["limit"]))
    pipeline.personalize(task["profile"], task["out"], base, log=log, settings=SETTINGS)

for task in plan:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            run(task, write)
            os._exit(0)
        except BaseException as error:
            os.write(write, (json.dumps(f"error: {type(error).__name__}: {error}") + "\\n").encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as lines:
        told = [json.loads(line) for line in lines]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    files = [path for path in pathlib.Path(task["out"]).rglob("*") if path.is_file()]
    stamps = {str(path): path.stat().st_mtime_ns for path in files}
    print(json.dumps({"code": code, "lines": told, "stamps": stamps}), flush=True)
"""
IN_STEP = {
    "dataset": r"\[1/7\] dataset …",
    "before": r"\[2/7\] before …",
    "training": r"training: step (9|1\d)/",  # behind a checkpoint
    "merge": r"\[4/7\] merge …",
    "after": r"\[5/7\] after …",
    "gguf": r"quantising to",
    "report": r"\[7/7\] report …",
}
TIMED = {"steps.json", "before.json", "after.json", "gguf.json", "training.json"}  # hold seconds and memory


def drive(base: Path, plan: list[dict]) -> list[dict]:
    """Do the runs of `plan`; {"code", "lines", "stamps": when each file was written} of each."""
    command = [sys.executable, "-c", DRIVER, str(base), json.dumps(plan)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, hidden ones too; of timed results only what was measured."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.name in TIMED:
                data = json.loads(path.read_bytes())
                kept = (
                    data if path.name == "steps.json" else {k: data.get(k) for k in ("metrics", "answers", "history")}
                )
                found[str(path.relative_to(folder))] = json.dumps(
                    {k: v["key"] for k, v in kept.items()} if path.name == "steps.json" else kept
                ).encode()
    return found


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory):
    """(run folder, its profile, what a run told, what the same run told afterwards)"""
    folder = tmp_path_factory.mktemp("whole")
    profile = folder / "alex.yaml"
    profile.write_text(PROFILE, encoding="utf-8")
    task = {"profile": str(profile), "out": str(folder / "run")}
    return folder / "run", profile, *drive(tiny_base, [task, task])


@pytest.mark.slow
def test_a_profile_becomes_a_verified_model(whole):
    folder, profile, first, _ = whole
    assert first["code"] == 0, first["lines"]
    for path in (
        "profile.yaml",
        "dataset/train.jsonl",
        "dataset/eval.jsonl",
        "dataset/README.md",
        "report.md",
        "Modelfile",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "merged/model.safetensors",
        "gguf/model-f16.gguf",
        "gguf/model-q8_0.gguf",
        "gguf/adapter.gguf",
        "results/before.json",
        "results/after.json",
        "results/gguf.json",
        "plots/loss.png",
        "plots/before_after.png",
        "steps.json",
    ):
        assert (folder / path).stat().st_size > 0, path
    assert (folder / "profile.yaml").read_bytes() == profile.read_bytes()
    assert not [name for name in contents(folder) if any(part.startswith(".") for part in Path(name).parts)]
    steps = json.loads((folder / "steps.json").read_text())
    assert list(steps) == list(STEPS) and all(
        step["seconds"] >= 0 and step["peak_ram_mb"] > 50 for step in steps.values()
    )
    result = json.loads((folder / "results" / "after.json").read_text())
    assert {
        "benchmark",
        "model",
        "metrics",
        "settings",
        "hardware",
        "packages",
        "commit",
        "data_sha256",
        "seed",
        "started",
        "seconds",
        "peak_ram_mb",
    } <= set(result)
    assert all(f"plots/{path.name}" in (folder / "report.md").read_text() for path in (folder / "plots").iterdir())
    assert (folder / "Modelfile").read_text().startswith("FROM ./gguf/model-q8_0.gguf\nSYSTEM ")


@pytest.mark.slow
def test_done_again_nothing_is_done(whole):
    folder, _, first, again = whole
    assert again["code"] == 0
    assert again["lines"] == [f"[{n}/7] {name}: already done" for n, name in enumerate(STEPS, 1)]
    changed = {path for path, stamp in again["stamps"].items() if first["stamps"].get(path) != stamp}
    assert changed <= {str(folder / "profile.yaml")} and len(again["stamps"]) == len(first["stamps"]) > 20


@pytest.mark.slow
def test_kill_9_in_every_step_then_again_gives_the_same_files(whole, tiny_base, tmp_path):
    folder, profile, _, _ = whole
    task = {"profile": str(profile), "out": str(tmp_path / "run")}
    kills = [kill for name in STEPS for kill in ({"line": IN_STEP[name]}, {"unsaved": name})]
    told = drive(tiny_base, [task | kill for kill in kills] + [task])
    assert [run["code"] for run in told] == [-9] * len(kills) + [0], told
    assert any("goes on from step" in line for run in told for line in run["lines"])
    # What was done before a kill is not done again.
    assert [line for line in told[-1]["lines"] if "already done" in line] == [
        f"[{n}/7] {name}: already done" for n, name in enumerate(STEPS[:-1], 1)
    ]
    killed, uninterrupted = contents(tmp_path / "run"), contents(folder)
    assert set(killed) == set(uninterrupted)
    assert [name for name in killed if killed[name] != uninterrupted[name]] == []


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written(whole, tiny_base, tmp_path):
    folder, profile, _, _ = whole
    uninterrupted = contents(folder)
    sizes = {name: (folder / name).stat().st_size for name in uninterrupted}
    limits = [
        sizes["dataset/train.jsonl"] // 2,
        sizes["merged/model.safetensors"] - 1,
    ]  # the first stops early
    plan = [{"profile": str(profile), "out": str(tmp_path / str(n)), "limit": limit} for n, limit in enumerate(limits)]
    for task, told in zip(plan, drive(tiny_base, plan), strict=True):
        assert told["code"] == 1 and told["lines"][-1].startswith("error: "), told
        left = contents(Path(task["out"]))
        whole_ones = {name: data for name, data in left.items() if not name.startswith(".") and name != "steps.json"}
        assert all(uninterrupted[name] == data for name, data in whole_ones.items())
        assert "gguf/model-q8_0.gguf" not in left
        assert ("[3/7] training …" in told["lines"]) == (task is plan[1])
    assert drive(tiny_base, [plan[1] | {"limit": None}])[0]["code"] == 0
    assert contents(tmp_path / "1") == uninterrupted


@pytest.mark.slow
def test_a_changed_profile_redoes_every_step(whole, tiny_base, tmp_path):
    import shutil

    folder, _, _, _ = whole
    shutil.copytree(folder, tmp_path / "run")
    profile = tmp_path / "alex.yaml"
    profile.write_text(PROFILE.replace("Buddy", "Rex"), encoding="utf-8")
    told = drive(tiny_base, [{"profile": str(profile), "out": str(tmp_path / "run")}])[0]
    assert told["code"] == 0, told["lines"]
    assert [line for line in told["lines"] if line.endswith(" …")] == [
        f"[{n}/7] {name} …" for n, name in enumerate(STEPS, 1)
    ]
    new, old = contents(tmp_path / "run"), contents(folder)
    assert set(new) == set(old)
    for name in (
        "dataset/train.jsonl",
        "adapter/adapter_model.safetensors",
        "merged/model.safetensors",
        "gguf/model-q8_0.gguf",
        "gguf/adapter.gguf",
        "results/after.json",
        "steps.json",
    ):
        assert new[name] != old[name], name
    assert b"Buddy" not in new["dataset/train.jsonl"] and b"Rex" in new["dataset/train.jsonl"]


# -- input that is refused


@pytest.fixture
def profile(tmp_path) -> Path:
    (tmp_path / "alex.yaml").write_text(PROFILE, encoding="utf-8")
    return tmp_path / "alex.yaml"


def test_wrong_input_is_told_before_anything_is_written(profile, tmp_path, tiny_base):
    out = tmp_path / "run"
    for path, base in (
        (profile, "no-such-base"),
        (profile, str(tmp_path)),
        (tmp_path / "none.yaml", str(tiny_base)),
        (tmp_path, str(tiny_base)),
    ):
        with pytest.raises(UserError):
            personalize(path, out, base)
    profile.write_text(PROFILE.replace("city", "citty"), encoding="utf-8")
    with pytest.raises(UserError, match="citty"):
        personalize(profile, out, str(tiny_base))
    assert not out.exists()


def test_other_defaults_of_the_training_make_another_run(profile, tmp_path, tiny_base, monkeypatch):
    from helpers import pipeline

    keys = [pipeline.begin(profile, tmp_path / "run", str(tiny_base)).key for _ in range(2)]
    monkeypatch.setattr(pipeline, "suited", lambda settings, size: dataclasses.replace(settings, strength=0.5))
    keys.append(pipeline.begin(profile, tmp_path / "run", str(tiny_base)).key)
    assert keys[0] == keys[1] != keys[2]


def test_a_file_in_the_place_of_the_run_folder_is_refused_and_stays(profile, tmp_path, tiny_base):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        personalize(profile, tmp_path / "run", str(tiny_base))
    assert (tmp_path / "run").read_text() == "mine"


def test_a_machine_too_small_for_the_base_is_told_before_anything_is_loaded(profile, tmp_path, monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 2.5e9, "available": 2e9}))
    with pytest.raises(UserError, match="needs 24 GB of memory, this machine has 2.5 GB"):
        personalize(profile, tmp_path / "run", "qwen2.5-7b")
    assert not (tmp_path / "run").exists()


# -- the bookkeeping of steps


def steps(folder: Path, key: str = "key"):
    lines: list[str] = []
    return pipeline.Run(folder, key, lines.append), lines


def test_a_step_is_done_once_and_again_when_its_files_or_its_input_change(tmp_path):
    made = []

    def work():
        made.append(1)
        (tmp_path / "out").write_text("x")

    for key, file_is_there, times in (
        ("a", True, 1),
        ("a", True, 1),
        ("a", False, 2),
        ("b", True, 3),
        ("a", True, 4),
    ):
        if not file_is_there:
            (tmp_path / "out").unlink()
        steps(tmp_path, key)[0].step("dataset", work, ["out"])
        assert len(made) == times


def test_a_step_that_fails_does_not_count(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    run, lines = steps(tmp_path)
    with pytest.raises(OSError, match="No space"):
        run.step("merge", fail, [])
    assert lines == ["[4/7] merge …"] and not run.state.exists()


def test_a_broken_state_file_means_that_nothing_is_done(tmp_path):
    for text in ("", "{", "[]", '{"dataset": 3}', "\0"):
        run, lines = steps(tmp_path)
        run.state.write_text(text)
        run.step("dataset", lambda: None, [])
        assert lines[0] == "[1/7] dataset …" and list(json.loads(run.state.read_text())) == ["dataset"]


def test_a_step_waits_for_those_before_it(tmp_path):
    run, _ = steps(tmp_path)
    run.work = {name: (lambda: None, []) for name in STEPS}
    with pytest.raises(UserError, match="'merge' needs step 'dataset'"):
        run.do("merge")
    for name in STEPS:
        run.do(name)
    assert list(json.loads(run.state.read_text())) == list(STEPS)


def test_a_form_added_to_the_bank_makes_another_run(tmp_path, monkeypatch):
    import shutil

    bank = shutil.copytree(pipeline.BANK, tmp_path / "bank")
    (tmp_path / "profile.yaml").write_text(PROFILE, encoding="utf-8")
    monkeypatch.setattr(pipeline, "BANK", bank)
    keys = []
    for change in ("", "", "# one more form\n"):
        with (bank / "pet.yaml").open("a", encoding="utf-8") as file:
            file.write(change)
        keys.append(pipeline.begin(tmp_path / "profile.yaml", tmp_path / "run", log=lambda line: None).key)
    assert keys[0] == keys[1] != keys[2]


def test_the_base_is_told_apart_by_the_bytes_of_its_files(tmp_path):
    from helpers.models import Model

    (tmp_path / "a").write_text("one")
    first = pipeline._fingerprint(Model("x", str(tmp_path)))
    assert pipeline._fingerprint(Model("y", str(tmp_path))) == first
    (tmp_path / "a").write_text("two")
    assert pipeline._fingerprint(Model("x", str(tmp_path))) != first
    assert pipeline._fingerprint(Model("x", "owner/name")) == "owner/name"
