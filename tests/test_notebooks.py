"""Execution, cost card, configuration and links, on tiny notebooks."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import colab, notebooks
from helpers import notebook_files as files
from helpers.cli import main
from helpers.errors import UserError
from helpers.notebooks import CARD, Cost

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
LINK = "https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/00_tiny.ipynb"


def tiny(*sources: str):
    """A notebook with a badge, a cost card, a set-up cell, a configuration cell and `sources`."""
    cells = [
        new_markdown_cell("# 00 · Tiny\n\n" + BADGE.format(LINK)),
        new_markdown_cell(f"Cost:\n\n{CARD[0]}\nold card\n{CARD[1]}\n\nthe end"),
        new_code_cell('REPO = "OWNER/REPO"'),
        new_code_cell('OUT = "runs/tiny"  # @param {type:"string"}\nSEED = 1  # @param'),
        *(new_code_cell(source) for source in sources),
    ]
    for cell, tag in zip(cells[1:4], ("cost-card", "setup", "parameters")):
        cell.metadata["tags"] = [tag]
    return new_notebook(cells=cells, metadata={"widgets": {"x": 1}})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty repository in place of the real one, whose helpers its kernels import."""
    monkeypatch.setenv("PYTHONPATH", str(notebooks.ROOT))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    return tmp_path


MAKE = """
import os, pathlib, sys
folder = pathlib.Path("..") / OUT
folder.mkdir(parents=True)
(folder / "file").write_bytes(b"x" * 2_000_000)
print(SEED, end=" ", flush=True)
print(os.environ["TOKENIZERS_PARALLELISM"])
from helpers.show import log
for line in ("go", "training: step 1", "training: step 2", "done"): log(line)
sys.executable
"""


def test_execute_stores_outputs_cost_and_checksum(root):
    path = root / "notebooks" / "00_tiny.ipynb"
    files.save(tiny(MAKE), path)
    (root / "runs" / "tiny").mkdir(parents=True)
    (root / "runs" / "tiny" / "old").touch()
    cost = notebooks.execute(path)
    done = files.load(path)
    cells = files.code_cells(done)
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    stream, value = cells[2].outputs
    assert stream.text == "1 false\ngo\ndone\n"  # many prints, one output
    assert value.data["text/plain"] == repr(sys.executable) and value.execution_count == 3
    assert "widgets" not in done.metadata
    assert done.metadata.personal_llm.code_sha256 == files.code_sha256(done)
    assert cost.seconds > 0 and 20 < cost.peak_ram_mb < 2000 and cost.disk_mb == 2.0
    assert [p.name for p in (root / "runs" / "tiny").iterdir()] == ["file"]  # made anew
    assert [p.name for p in (root / "runs").iterdir()] == ["tiny"]
    assert not [p for p in psutil.Process().children() if "ipykernel_launcher" in " ".join(p.cmdline())]
    source = files.tagged(done, "cost-card").source
    assert source.startswith("Cost:") and source.endswith("the end") and "old card" not in source
    assert "minutes" in source and source.count(CARD[0]) == 1


def test_failed_execution_changes_nothing(root):
    from nbclient.exceptions import CellExecutionError

    path = root / "notebooks" / "00_tiny.ipynb"
    files.save(tiny("import pathlib\n(pathlib.Path('..') / OUT).mkdir()\n1 / 0"), path)
    (root / "runs" / "tiny").mkdir(parents=True)
    (root / "runs" / "tiny" / "old").touch()
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(path)
    assert path.read_bytes() == before
    assert [p.name for p in (root / "runs" / "tiny").iterdir()] == ["old"]


@pytest.mark.parametrize("out", ["data", "runs", "..", "runs/../data"])
def test_execute_removes_no_folder_outside_runs(root, out):
    path = root / "notebooks" / "00_tiny.ipynb"
    notebook = tiny()
    files.set_parameters(notebook, {"OUT": out})
    files.save(notebook, path)
    (root / "data").mkdir()
    with pytest.raises(UserError, match="not a folder in runs/"):
        notebooks.execute(path)
    assert (root / "data").is_dir()


def test_card_is_replaced_not_added():
    notebook = tiny()
    for seconds in (60, 120):
        notebooks.write_card(notebook, Cost(seconds, 1000, 20))
    source = files.tagged(notebook, "cost-card").source
    assert "2.0 minutes" in source and "1.0 minutes" not in source and "1000 MB" in source


def test_parameters_are_read_and_replaced_in_place():
    notebook = tiny()
    assert files.parameters(notebook) == {"OUT": "runs/tiny", "SEED": 1}
    files.set_parameters(notebook, {"SEED": 7, "OUT": r"C:\new"})
    assert files.parameters(notebook) == {"SEED": 7, "OUT": r"C:\new"}
    assert files.tagged(notebook, "parameters").source.count("# @param") == 2
    with pytest.raises(UserError, match="no parameter 'SEEDS'"):
        files.set_parameters(notebook, {"SEEDS": 7})


def test_checksum_follows_the_code_and_not_prose_outputs_or_repository():
    notebook = tiny("1 + 1")
    before = files.code_sha256(notebook)
    notebook.cells[0].source += "more"
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    files.tagged(notebook, "setup").source = 'REPO = "some/where"'
    assert files.code_sha256(notebook) == before
    notebook.cells[-1].source = "1 + 2"
    assert files.code_sha256(notebook) != before


def test_load_tells_what_is_wrong(tmp_path):
    (tmp_path / "bad.ipynb").write_text("{")
    with pytest.raises(UserError, match="not a notebook"):
        files.load(tmp_path / "bad.ipynb")
    with pytest.raises(UserError, match="no such notebook"):
        files.load(tmp_path / "none.ipynb")


def test_tag_must_be_there_once():
    with pytest.raises(UserError, match="0 cells with the tag 'nothing'"):
        files.tagged(tiny(), "nothing")


README = f"""{BADGE.format(LINK)}
git clone https://github.com/OWNER/REPO.git
git clone https://github.com/OWNER/REPO
[Unsloth](https://github.com/unslothai/unsloth) and https://github.com/OWNER/REPO-other stay.
"""


def test_badges_everywhere_and_again(root):
    (root / "README.md").write_text(README)
    path = root / "notebooks" / "00_tiny.ipynb"
    notebook = tiny("# github.com/OWNER/REPO is a comment\nREPOS = 1")
    notebook.cells.append(new_markdown_cell("See https://github.com/OWNER/REPO/issues."))
    files.save(notebook, path)
    for name in ("ann/first.one", "bob-2/second"):
        changed = files.badges(name, root)
        assert [p.name for p in changed] == ["README.md", "00_tiny.ipynb"]
        readme, sources = (root / "README.md").read_text(), [c.source for c in files.load(path).cells]
        assert f"/github/{name}/blob/main/notebooks/00_tiny.ipynb" in readme
        assert f"github.com/{name}.git\n" in readme and f"github.com/{name}\n" in readme
        assert "github.com/unslothai/unsloth" in readme and "github.com/OWNER/REPO-other" in readme
        assert f"/github/{name}/blob/" in sources[0] and sources[2] == f'REPO = "{name}"'
        assert sources[-1] == f"See https://github.com/{name}/issues."
        before = path.read_bytes()
        assert files.badges(name, root) == [] and path.read_bytes() == before
    files.badges("OWNER/REPO", root)
    assert (root / "README.md").read_text() == README


@pytest.mark.parametrize(
    "name",
    ["", "owner", "a/b/c", "https://github.com/a/b", "a b/c", "-a/b", "a/b.git", "a/..", "ö/b", "a/b\n", 'a/"+x+"'],
)
def test_bad_repository_names_are_refused(name, root, capsys):
    with pytest.raises(UserError, match="no GitHub repository"):
        files.badges(name, root)
    assert main(["badges", "--repo", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_commands_tell_what_is_wrong(capsys):
    assert main(["notebooks", "--only", "77"]) == 2
    assert "no notebook begins with '77'" in capsys.readouterr().err


def test_colab_keeps_its_torch_and_numpy():
    text = (colab.ROOT / "requirements.txt").read_text()
    kept = {"torch": "2.11.0+cu128", "numpy": "2.0.2"}
    wanted, constraints = colab.plan(text, kept)
    names = {line.split("==")[0] for line in wanted}
    assert {"transformers", "trl", "peft", "gguf"} <= names
    assert not names & {*kept, *colab.NOT_NEEDED} and not any("#" in line for line in wanted)
    assert constraints == ["torch==2.11.0+cu128", "numpy==2.0.2"]
    assert all(line in text for line in wanted)


def test_colab_refuses_once_torch_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.setenv("PERSONAL_LLM_CACHE", str(tmp_path))
    monkeypatch.setattr(colab, "_install", lambda: pytest.fail("installed"))
    with pytest.raises(RuntimeError, match="Restart session"):
        colab.install()


def test_colab_installs_nothing_twice(capsys):
    colab.install()  # all is here: only the versions are printed
    assert "llama-cpp-python 0.3.36" in capsys.readouterr().out


SETUP = files.tagged(files.load(notebooks.FOLDER / "00_quickstart.ipynb"), "setup").source


def test_setup_cell_finds_the_repository_from_its_notebooks():
    code = f"{SETUP}\nassert Path('helpers/colab.py').is_file() and str(ROOT) == sys.path[0]"
    env = {"PATH": "/usr/bin:/bin"}
    for folder in ("notebooks", "."):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=notebooks.ROOT / folder, env=env, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_setup_cell_fetches_the_repository_once_and_installs_in_colab(tmp_path):
    """A stand-in for Colab: git and the installer write down that they were called."""
    tools, work = tmp_path / "bin", tmp_path / "content"
    tools.mkdir()
    work.mkdir()
    (tools / "git").write_text(
        '#!/bin/sh\nfor to; do :; done\necho "$@" >> "$LOG"\nmkdir -p "$to/helpers"\n'
        'touch "$to/helpers/__init__.py"\n'
        'echo "def install(): print(\'installing\')" > "$to/helpers/colab.py"\n'
    )
    (tools / "git").chmod(0o755)
    log = tmp_path / "log"
    path = f"{tools}:{os.environ['PATH']}"
    env = {"PATH": path, "COLAB_RELEASE_TAG": "x", "LOG": str(log)}
    for _ in range(2):  # a restarted session starts in the same folder again
        command = [sys.executable, "-c", SETUP]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        assert done.stdout == "installing\n", done.stderr
    calls = log.read_text().splitlines()
    repo = files.SETUP_REPO.search(SETUP)[2]
    assert len(calls) == 1 and f"https://github.com/{repo} " in calls[0]
