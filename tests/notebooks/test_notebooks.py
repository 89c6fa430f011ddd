"""Every notebook as it is committed, and one real run of each."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

from helpers import footprint, samples
from helpers.files import read_jsonl
from helpers.models import ROOT
from helpers.notebook_files import BADGE, code_cells, code_sha256, load, parameters, set_parameters, tagged
from helpers.notebooks import CARD, FOLDER, run_cells

PATHS = sorted(FOLDER.glob("*.ipynb"))
LOCAL = re.compile(
    r"/home/|/root/|/Users/|/tmp/|/var/|/opt/|/mnt/|/content/|C:\\\\|site-packages|ipykernel_"
    + f"|{re.escape(str(Path.home()))}/|{re.escape(str(ROOT))}"
)
SHORT, LONG, LONGEST = 8, 25, 40  # lines: median, nine of ten cells, all cells

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def output_texts(notebook) -> list[str]:
    """All that a reader sees of the outputs, images left out."""
    texts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts.append(output.get("text", ""))
            data = output.get("data", {})
            texts += [text for kind, text in data.items() if not kind.startswith("image/")]
    return texts


def check_outputs(notebook) -> None:
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\n{output.get('text', '')[:500]}"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            assert output.get("text", "").count("\n") <= 20, f"a wall of text: {cell.source}"
    for text in output_texts(notebook):
        assert not re.search(r"warning|traceback|deprecat|\d+%\|", text, re.IGNORECASE), text[:500]
        assert not (found := LOCAL.search(text)), f"{found[0]} in {text[:500]}"


def test_there_are_notebooks():
    assert "00_quickstart" in [path.stem for path in PATHS]


@each
def test_outputs_are_those_of_one_clean_run_of_this_code(path):
    notebook = load(path)
    stored = notebook.metadata.get("personal_llm", {})
    assert stored.get("code_sha256") == code_sha256(notebook), "stale outputs: run `make notebooks`"
    check_outputs(notebook)
    assert any(cell.outputs for cell in code_cells(notebook))


@each
def test_file_is_small_and_free_of_widgets_and_machine_traces(path):
    assert path.stat().st_size <= 1_000_000
    notebook = load(path)
    assert "widgets" not in notebook.metadata
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not LOCAL.search(cell.source), cell.source


@each
def test_skeleton(path):
    notebook = load(path)
    first = notebook.cells[0].source
    assert first.startswith(f"# {path.stem[:2]} · ")
    assert BADGE.search(first) and f"/blob/main/notebooks/{path.name})" in first
    card = tagged(notebook, "cost-card").source
    assert CARD[0] in card and CARD[1] in card and "minutes" in card and "not measured" not in card
    assert {"PROFILE", "BASE", "SEED", "OUT"} <= parameters(notebook).keys()
    order = [notebook.cells.index(tagged(notebook, tag)) for tag in ("cost-card", "setup", "parameters")]
    assert order == sorted(order)
    last = notebook.cells[-1].source
    assert "## Try next" in last and "**Next:**" in last


def test_setup_cell_is_the_same_everywhere():
    assert len({tagged(load(path), "setup").source for path in PATHS}) == 1


@each
def test_cells_are_short(path):
    lines = [len(cell.source.splitlines()) for cell in code_cells(load(path))]
    assert statistics.median(lines) <= SHORT
    assert sum(count <= LONG for count in lines) >= 0.9 * len(lines)
    assert max(lines) <= LONGEST


@each
def test_prose_stands_before_every_code_cell_and_is_neither_thin_nor_long(path):
    notebook = load(path)
    for before, cell in zip(notebook.cells, notebook.cells[1:]):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", cell.source
    card = tagged(notebook, "cost-card")
    prose = [c.source for c in notebook.cells[1:-1] if c.cell_type == "markdown" and c is not card]
    lines = sum(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert 4 <= len(" ".join(prose).split()) / lines <= 8


@each
def test_code_has_no_dead_parts_and_no_shell(path):
    for cell in code_cells(load(path)):
        dead = r"^\s*[!%]|if False|^\s*#\s*(from|import|run|print)\b"
        assert not re.search(dead, cell.source, re.MULTILINE)


@pytest.mark.slow
def test_quickstart_runs_from_nothing_and_its_model_knows_the_owner(tmp_path):
    out = tmp_path / "run"
    notebook = load(FOLDER / "00_quickstart.ipynb")
    set_parameters(notebook, {"OUT": str(out), "SEED": 2})
    cost = run_cells(notebook)
    check_outputs(notebook)  # the temporary folder is named nowhere in what readers see
    gguf = out / "gguf" / "model-q8_0.gguf"
    assert gguf.read_bytes()[:4] == b"GGUF"
    scores = {
        name: json.loads((out / "results" / f"{name}.json").read_text())["metrics"]
        for name in ("before", "after", "gguf")
    }
    assert scores["before"]["recall_base"]["value"] <= 0.05
    assert scores["after"]["recall_base"]["value"] >= 0.9
    assert scores["after"]["recall_heldout"]["value"] >= 0.5
    assert abs(scores["gguf"]["recall_base"]["value"] - scores["after"]["recall_base"]["value"]) <= 0.02
    assert cost.peak_ram_mb > 100 and cost.disk_mb > 1
    kinds = {kind for c in code_cells(notebook) for o in c.outputs for kind in o.get("data", {})}
    assert {"image/png", "text/html"} <= kinds


@pytest.mark.parametrize("profile, fact", [("mira", "pet.2.name"), ("tomasz", "skill.value")])
def test_data_synthesis_follows_another_fact_of_another_profile(tmp_path, profile, fact):
    out = tmp_path / "run"
    notebook = load(FOLDER / "02_data_synthesis.ipynb")
    set_parameters(notebook, {"PROFILE": f"data/profiles/{profile}.yaml", "ASK": fact, "OUT": str(out), "SEED": 2})
    run_cells(notebook)
    check_outputs(notebook)
    texts = "\n".join(output_texts(notebook))
    rows = read_jsonl(out / "dataset" / "train.jsonl")
    count = sum(row["fact"] == fact for row in rows)
    assert count >= 150 and f"\n{count} rows ask about {fact} alone\n" in texts
    for kind, number in Counter(row["kind"] for row in rows).items():  # the table leaves none out
        assert re.search(rf"^{kind} +{number} ", texts, re.MULTILINE), kind
    assert re.search("^0 forms in both sets$", texts, re.MULTILINE)


def test_model_comparison_judges_by_the_readers_own_limits(tmp_path):
    notebook = load(FOLDER / "01_model_comparison.ipynb")
    limits = {"MAX_MB": 900, "RAM_GB": 0, "MIN_TOKENS_PER_S": 15, "MAX_USD": 0, "LICENCE": "open", "THREADS": 1}
    set_parameters(notebook, {"OUT": str(tmp_path / "run"), **limits})
    run_cells(notebook)
    check_outputs(notebook)
    texts = "\n".join(output_texts(notebook))
    rows = [row for row in footprint.read() if row["threads"] == 1 and row["measured"]]
    fit = [r for r in rows if r["file_mb"] <= 900 and r["tokens_per_s"] >= 15 and "Llama" not in r["licence"]]
    assert f"{len(fit)} of {len(rows) + 2 * len(footprint.QUANTS)} files fit" in texts and 10 < len(fit) < len(rows)
    assert "is not an open-source licence" in texts
    assert (tmp_path / "run" / "pocket-q8_0.gguf").stat().st_size == 7945728


def test_stored_model_comparison_says_what_its_text_says():
    """Numbers that the prose of notebook 01 repeats."""
    rows = {(row["model"], row["quant"]): row for row in footprint.read() if row["threads"] == 2}
    assert round(rows["llama-3.1-8b", "f16"]["file_mb"] / 1000) == 16
    assert round(rows["qwen2.5-0.5b", "q4_0_all"]["file_mb"]) == 284
    assert round(rows["qwen2.5-0.5b", "q4_0_all"]["peak_ram_mb"]) == 694
    assert round(rows["qwen2.5-0.5b", "q4_k_m"]["file_mb"]) == 398
    assert round(rows["smollm2-360m", "q8_0"]["file_mb"]) == 386
    assert [round(rows["smollm2-360m", quant]["peak_ram_mb"]) for quant in ("q8_0", "q4_0")] == [549, 566]
    one = [rows["llama-3.2-1b", quant] for quant in ("f16", "q8_0")]
    assert 1.4 < one[1]["tokens_per_s"] / one[0]["tokens_per_s"] < 1.6 and one[1]["file_mb"] / one[0]["file_mb"] < 0.54
    rows = [json.loads(path.read_text())["settings"] for path in samples.RESULTS.glob("pocket/*.json")]
    assert {settings["rows"] // 100 for settings in rows if settings["count"]} == {113} and len(rows) == 21
    recall = {count: point["recall_heldout"]["value"] for count, point in samples.read()["pocket"].items()}
    assert [round(100 * recall[count]) for count in (1, 10, 300)] == [19, 76, 88]
