"""Notebook files: reading, writing, tagged cells, configuration values, checksum, links to the repository."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from helpers.errors import UserError
from helpers.files import write_text
from helpers.models import ROOT

PLACEHOLDER = "OWNER/REPO"  # stands in badges and set-up cells until `make badges` is told the repository
BADGE = re.compile(r"(colab\.research\.google\.com/github/)([\w.-]+/[\w.-]+)(?=/blob/)")
SETUP_REPO = re.compile(r'^(REPO = ")([^"]*)(")', re.MULTILINE)
REPO_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?/[A-Za-z0-9._-]{1,100}")
PARAMETER = re.compile(r"^(\w+) = (.+?)(\s*# @param.*)$", re.MULTILINE)


def load(path: Path | str):
    """The notebook in `path`. Raises UserError when it is none."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise UserError("no such notebook", path, "Check the name.") from None
    except Exception as error:  # not JSON, no notebook, a version from the future
        what = f"is not a notebook ({type(error).__name__})"
        raise UserError(what, path, "Open it in JupyterLab and save it.") from error


def save(notebook, path: Path | str) -> None:
    """Write a notebook atomically, in the form that gives small diffs."""
    import nbformat

    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag: str):
    """The one cell with this tag. Raises UserError when there is not exactly one."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"the notebook has {len(cells)} cells with the tag {tag!r}", None, "Tag one cell.")
    return cells[0]


def code_sha256(notebook) -> str:
    """Checksum of all code cells. The repository's name does not count: `make badges` ages no outputs."""
    sources = [SETUP_REPO.sub(rf"\g<1>{PLACEHOLDER}\g<3>", cell.source) for cell in code_cells(notebook)]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


# -- configuration


def parameters(notebook) -> dict[str, object]:
    """Names and values of the `# @param` lines in the cell with the tag `parameters`; empty without one."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    found = [line for cell in cells for line in PARAMETER.findall(cell.source)]
    return {name: ast.literal_eval(value) for name, value, _ in found}


def set_parameters(notebook, values: Mapping[str, object]) -> None:
    """Put other values into the configuration cell. Raises UserError for a name that it does not have."""
    cell, known = tagged(notebook, "parameters"), parameters(notebook)
    for name in values.keys() - known.keys():
        raise UserError(f"the notebook has no parameter {name!r}", None, f"It has {', '.join(known)}.")
    cell.source = PARAMETER.sub(
        lambda found: f"{found[1]} = {values.get(found[1], known[found[1]])!r}{found[3]}", cell.source
    )


# -- links


def badges(repo: str, root: Path = ROOT) -> list[Path]:
    """Write `repo` (owner/name) into every badge, own link and set-up cell; returns the changed files."""
    if not REPO_NAME.fullmatch(repo) or repo.endswith((".git", "/.", "/..")):
        raise UserError(f"{repo!r} is no GitHub repository", "--repo", "Write: make badges REPO=owner/name.")
    changed = []
    for path in sorted(root.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if (text := _with_repo(old, repo, _named(old))) != old:
            write_text(path, text)
            changed.append(path)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = load(path)
        old = [cell.source for cell in notebook.cells]
        named = _named("\n".join(old))
        for cell in notebook.cells:
            cell.source = _with_repo(cell.source, repo, named)
            if cell.cell_type == "code":
                cell.source = SETUP_REPO.sub(rf"\g<1>{repo}\g<3>", cell.source)
        if [cell.source for cell in notebook.cells] != old:
            save(notebook, path)
            changed.append(path)
    return changed


def _named(text: str) -> set[str]:
    """The repositories that a file's badges name now."""
    return {PLACEHOLDER, *(found[2] for found in BADGE.finditer(text))}


def _with_repo(text: str, repo: str, named: set[str]) -> str:
    """Badges get the new name, and so do other links to the repository that the badges named; no others."""
    for old in sorted(named):
        text = re.sub(rf"(github\.com/){re.escape(old)}(?![\w-])", rf"\g<1>{repo}", text)
    return BADGE.sub(rf"\g<1>{repo}", text)
