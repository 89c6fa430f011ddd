"""Files are whole or not there, whenever the process dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import files
from helpers.errors import UserError
from helpers.files import (
    atomic_dir,
    peak_ram_mb,
    read_jsonl,
    sha256,
    write_bytes,
    write_json,
    write_jsonl,
    write_text,
)
from helpers.models import ROOT


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "one\r\n")
    write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode() and names(path.parent) == ["b.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert json.loads(path.read_text()) == {"x": 1} and names(tmp_path) == ["a.json"]
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert json.loads(path.read_text()) == {"x": 1}


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with atomic_dir(tmp_path / "out") as folder:
        (folder / "one").write_text("1")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["one"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    with pytest.raises(RuntimeError), atomic_dir(tmp_path / "out") as folder:
        (folder / "two").write_text("2")
        raise RuntimeError
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["one"]
    with atomic_dir(tmp_path / "out") as folder:
        (folder / "two").write_text("2")
    assert names(tmp_path / "out") == ["two"]


WRITER = """
import sys
from pathlib import Path
from helpers.files import atomic_dir, write_bytes
folder, number = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number = (number + 1) % 10
    write_bytes(folder / "file", str(number).encode() * 3_000_000)
    with atomic_dir(folder / "dir") as new:
        for name in "abc":
            (new / name).write_bytes(str(number).encode() * 300_000)
"""


@pytest.mark.parametrize("delay", [0.1, 0.17, 0.26, 0.33])
def test_kill_9_while_writing(tmp_path, delay):
    write_bytes(tmp_path / "file", b"0" * 3_000_000)
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    data = (tmp_path / "file").read_bytes()
    assert len(data) == 3_000_000 and len(set(data)) == 1
    if (tmp_path / "dir").exists():
        assert names(tmp_path / "dir") == ["a", "b", "c"]
        parts = [(tmp_path / "dir" / name).read_bytes() for name in "abc"]
        assert len({*parts}) == 1 and len(parts[0]) == 300_000
    left = [name for name in names(tmp_path) if name not in ("file", "dir")]
    assert all(name.startswith(".") for name in left) and len(left) <= 2  # what a kill leaves is hidden


ROWS = st.lists(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=5),
        st.one_of(st.text(st.characters(codec="utf-8")), st.integers(), st.none(), st.lists(st.booleans())),
        max_size=4,
    ),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_jsonl_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a": 1}\n[1]\n', "rows.jsonl:2: not a JSON object"),
        (b'{"a": 1}\n\n{"a": \n', "rows.jsonl:3: not a JSON object"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "rows.jsonl:1: not a JSON object"),
        (b"1\n", "rows.jsonl:1"),
    ],
)
def test_a_broken_jsonl_file_is_told_in_one_line(tmp_path, data, told):
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_jsonl(tmp_path / "rows.jsonl")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_jsonl(path)


def test_checksum_and_memory(tmp_path):
    (tmp_path / "x").write_bytes(os.urandom(70_000))
    assert sha256(tmp_path / "x") == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert 10 < peak_ram_mb() < 1e6


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's own peak")
def test_a_childs_memory_is_its_own():
    """getrusage reports a parent's memory for a child that it started."""
    large = bytearray(400_000_000)
    large[::4096] = b"x" * len(large[::4096])
    code = "from helpers.files import peak_ram_mb; print(peak_ram_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 200 < len(large) / 1e6
