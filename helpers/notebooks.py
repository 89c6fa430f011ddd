"""Executes notebooks the way they are committed: in order, from nothing, measured, without machine traces."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helpers.errors import UserError
from helpers.models import ROOT
from helpers.notebook_files import code_cells, code_sha256, load, parameters, save, tagged

FOLDER = ROOT / "notebooks"
CARD = ("<!-- cost-card: written by `make notebooks` -->", "<!-- end of cost-card -->")
CELL_SECONDS = 1800  # a cell that runs longer hangs
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Cost:
    """What one execution took: seconds, largest memory of the kernel with its children, its run folder."""

    seconds: float
    peak_ram_mb: float
    disk_mb: float


def run_cells(notebook, folder: Path | str = FOLDER) -> Cost:
    """Execute all cells in place, in a fresh kernel of this Python that starts in `folder`.

    Raises nbclient's CellExecutionError at the first cell that fails. Afterwards the cells are counted from 1
    and carry no widgets and no times: a second run differs only in what the code itself measures.
    """
    from nbclient import NotebookClient

    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_manager_class=_this_python(),
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    began = time.monotonic()
    with client.setup_kernel(), _memory_of(client.km.provisioner.pid) as seen:
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    seconds = time.monotonic() - began
    _clean(notebook)
    out = parameters(notebook).get("OUT")
    return Cost(seconds, max(seen) / 1e6, _size(ROOT / str(out)) / 1e6 if out else 0.0)


def _this_python() -> type:
    """A kernel manager that starts this environment's Python, whatever kernels the user has installed."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "--log-level=40", "-f"]
            command.append("{connection_file}")
            return KernelSpec(argv=command, display_name="Python 3", language="python", env=dict(ENVIRONMENT))

    return ThisPython


@contextlib.contextmanager
def _memory_of(pid: int, every: float = 0.2) -> Iterator[list[int]]:
    """Yields a list that is filled with the resident bytes of a process and its children, `every` s."""
    import psutil

    seen, done = [0], threading.Event()

    def watch() -> None:
        while True:
            with contextlib.suppress(psutil.Error):
                kernel, total = psutil.Process(pid), 0
                for process in (kernel, *kernel.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):  # it may end at any moment
                        total += process.memory_info().rss
                seen.append(total)
            if done.wait(every):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _clean(notebook) -> None:
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = number
        cell.metadata.pop("execution", None)
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def card(cost: Cost) -> str:
    """The cost card, in Markdown, between its two marks."""
    from helpers.results import commit, hardware

    machine = hardware()
    size = f"{machine['cores']} cores, {machine['ram_gb']} GB of memory, {machine['gpu'] or 'no GPU'}"
    rows = {
        "time": f"{cost.seconds / 60:.1f} minutes",
        "peak memory": f"{cost.peak_ram_mb:.0f} MB",
        "disk": f"{cost.disk_mb:.0f} MB",
        "measured on": f"{machine['cpu']}, {size}",
        "date, commit": f"{datetime.now(UTC):%Y-%m-%d}, {commit()[:12]}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([CARD[0], "", "| one run costs | |", "|---|---|", *lines, "", CARD[1]])


def write_card(notebook, cost: Cost) -> None:
    """Put the card into the cell with the tag `cost-card`, in place of the one before."""
    cell = tagged(notebook, "cost-card")
    before, _, rest = cell.source.partition(CARD[0])
    cell.source = before + card(cost) + rest.partition(CARD[1])[2]


@contextlib.contextmanager
def _without(folder: Path) -> Iterator[None]:
    """Inside, `folder` is not there; if the block fails, what was there before comes back."""
    if ROOT / "runs" not in folder.parents:
        raise UserError(f"the notebook's OUT is {folder.name!r}, not a folder in runs/", None, "Change it.")
    aside = folder.with_name(f".{folder.name}.before")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if aside.exists():
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def execute(path: Path | str) -> Cost:
    """Run a notebook from nothing and store outputs, cost card and the checksum of its code in its file.

    Its run folder (OUT of the configuration cell) is made anew. When the run fails, both stay as they were.
    """
    notebook = load(path)
    tagged(notebook, "cost-card")
    out = parameters(notebook).get("OUT")
    with _without((ROOT / str(out)).resolve()) if out else contextlib.nullcontext():
        cost = run_cells(notebook, Path(path).resolve().parent)
        write_card(notebook, cost)
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        notebook.metadata["personal_llm"] = {"code_sha256": code_sha256(notebook), "executed": today}
        save(notebook, path)
    return cost


def execute_all(only: str = "", log: Callable[[str], None] = print, folder: Path = FOLDER) -> None:
    """Execute the notebooks whose names begin with `only`, in order. Raises UserError when there is none."""
    paths = sorted(path for path in folder.glob("*.ipynb") if path.name.startswith(only))
    if not paths:
        raise UserError(f"no notebook begins with {only!r}", "--only", f"See what is in {folder.name}/.")
    for path in paths:
        log(f"{path.name} …")
        cost = execute(path)
        log(f"{path.name}: {cost.seconds:.0f} s, peak memory {cost.peak_ram_mb:.0f} MB")
