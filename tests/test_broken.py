"""Every broken input gives one line, exit code 2, no traceback, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import main
from helpers.models import ROOT
from tests.broken.datasets import DATASETS, ROW, lines
from tests.broken.profiles import GOOD, PROFILES


def told(capsys, *arguments: object) -> str:
    """The one line that the command writes to stderr."""
    assert main([str(argument) for argument in arguments]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1 and "Traceback" not in written.err, written.err
    return written.err.rstrip("\n")


@pytest.fixture
def pipeline_must_not_start(monkeypatch):
    """A command that gets as far as importing the pipeline has let the mistake pass."""
    monkeypatch.setitem(sys.modules, "helpers.pipeline", None)


def test_the_unbroken_ones_are_good(tmp_path):
    from helpers.profile import load_profile
    from helpers.rows import check_rows

    (tmp_path / "good.yaml").write_text(GOOD)
    assert load_profile(tmp_path / "good.yaml").owner == "Alex Rivera"
    check_rows([ROW])


@pytest.mark.parametrize("name", PROFILES)
def test_broken_profile(name, tmp_path, capsys, pipeline_must_not_start):
    data, line, words = PROFILES[name]
    profile, out = tmp_path / "profile.yaml", tmp_path / "out"
    profile.write_bytes(data)
    message = told(capsys, "personalize", "--profile", profile, "--out", out)
    assert message.startswith(f"{profile}:{line}: " if line else f"{profile}"), message
    assert words in message
    assert len(message) < 350
    assert os.listdir(tmp_path) == ["profile.yaml"]


@pytest.mark.parametrize("name", DATASETS)
def test_broken_questions(name, tmp_path, capsys):
    data, words = DATASETS[name]
    questions = tmp_path / "questions.jsonl"
    questions.write_bytes(data)
    message = told(capsys, "evaluate", "--model", tmp_path / "run", "--questions", questions)
    assert message.startswith(str(questions)) and words in message, message
    assert os.listdir(tmp_path) == ["questions.jsonl"]


@pytest.mark.parametrize("path", ["missing.yaml", ".", "fifo", "x" * 300])
def test_profile_that_is_no_file(path, tmp_path, capsys, monkeypatch, pipeline_must_not_start):
    monkeypatch.chdir(tmp_path)
    if path == "fifo":
        os.mkfifo(path)  # opening it would wait for ever
    before = os.listdir()
    assert path in told(capsys, "personalize", "--profile", path, "--out", "out")
    assert os.listdir() == before


@pytest.mark.parametrize("profile", ["missing.yaml", "empty.yaml", "bomb.yaml"])
def test_the_real_process(profile, tmp_path):
    """Through a process of its own: exit code, streams and silence as a shell sees them."""
    (tmp_path / "empty.yaml").write_bytes(b"")
    (tmp_path / "bomb.yaml").write_bytes(PROFILES["yaml_bomb"][0])
    before = sorted(os.listdir(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "personalize", "--profile", profile, "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(profile) and done.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_broken_questions_in_the_real_process(tmp_path):
    Path(tmp_path / "q.jsonl").write_bytes(lines({**ROW, "kind": "facts"}))
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "evaluate", "--model", ".", "--questions", "q.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("q.jsonl: row 1: 'kind' is 'facts'") and done.stderr.count("\n") == 1
