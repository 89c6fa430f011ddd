"""What notebooks show, and the pipeline's steps taken one at a time."""

from __future__ import annotations

import io

import pytest

from helpers import pipeline, show
from helpers.errors import UserError
from helpers.models import ROOT, resolve
from helpers.results import metric


def row(question: str, answer: str, fact: str = "pet.1.name", **other) -> dict:
    messages = [{"role": r, "content": c} for r, c in zip(("system", "user", "assistant"), ("s", question, answer))]
    return {
        "messages": messages,
        "fact": fact,
        "kind": "fact",
        "style": "plain",
        "split": "base",
        "perspective": "owner",
        "keywords": [answer.split()[-1].strip(".")],
        **other,
    }


def test_table_escapes_html_and_stays_readable_as_text():
    table = show.Table(["a", "b"], [("<b>&", 1), ("two\nlines", 22)])
    assert "&lt;b&gt;&amp;" in table._repr_html_() and "<b>" not in table._repr_html_()
    assert repr(table).splitlines() == ["a            b", "<b>&         1", "two ⏎ lines  22"]


def test_progress_lines_take_the_place_of_one_another(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    for line in ("[3/7] training …", "training: step 1/9", "training: step 9/9", "[3/7] training: 1 s"):
        show.log(line)
    lines = [line.rsplit("\r", 1)[-1].strip() for line in out.getvalue().split("\n")]
    assert lines == ["[3/7] training …", "[3/7] training: 1 s", ""]


def test_handful_takes_facts_evenly_then_the_unknown_and_the_stranger():
    rows = [
        row(f"q{n} {who}", f"a{n}.", f"fact.{n}", perspective=who) for n in range(13) for who in ("owner", "visitor")
    ]
    rows += [
        row("u1", "I don't know.", "never.x", kind="unknown", style="caps"),
        row("u2", "I don't know.", "never.x", kind="unknown"),
        row("s", "I don't know.", "s.x", kind="stranger"),
    ]
    asked = [show.question(r) for r in show.handful(rows)]
    assert asked == ["q0 owner", "q2 visitor", "q4 owner", "q6 visitor", "q8 owner", "q10 visitor", "u2", "s"]
    few = show.handful([r for r in rows[:2] if r["perspective"] == "visitor"])
    assert [show.question(r) for r in few] == ["q0 visitor"]


def test_side_by_side_judges_both_answers():
    rows = [row("Dog?", "Buddy."), row("Car?", "I don't know.", kind="unknown")]
    table = show.side_by_side(rows, ["Rex.", "A Volvo."], ["It is Buddy.", "I don't know that."])
    assert table.rows == [
        ["Dog?", "✗ Rex.", "✓ It is Buddy."],
        ["Car?", "✗ A Volvo.", "✓ I don't know that."],
    ]


def test_kinds_counts_and_gives_one_example():
    table = show.kinds([row("one", "a."), row("two", "b."), row("x", "I don't know.", kind="unknown")])
    assert table.rows == [["fact", "2", "one", "a."], ["unknown", "1", "x", "I don't know."]]


def test_scores_show_what_there_is():
    table = show.scores({"recall_base": metric(0, 50)}, {"recall_base": metric(49, 50), "leaks": metric(1, 40)})
    assert [line[1:3] for line in table.rows] == [["0.0 %", "98.0 %"], ["-", "2.5 %"]]
    assert table.rows[0][0] == "recall: forms the base knew" and table.rows[0][4] == "50"


@pytest.fixture
def base(tmp_path):
    """What looks like a base model from outside: enough for the steps before any model is loaded."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    return str(folder)


def test_steps_go_in_order_and_are_done_once(tmp_path, base):
    said: list[str] = []
    run = pipeline.begin(ROOT / "data" / "profiles" / "alex.yaml", tmp_path / "run", base, log=said.append)
    assert run.profile.first_name == "Alex" and run.model.path == base and set(run.work) == set(pipeline.STEPS)
    for early in pipeline.STEPS[1:]:
        with pytest.raises(UserError, match="needs step 'dataset'"):
            run.do(early)
    run.do("dataset")
    rows = (tmp_path / "run" / "dataset" / "train.jsonl").read_bytes()
    for again in (
        run,
        pipeline.begin(ROOT / "data" / "profiles" / "alex.yaml", tmp_path / "run", base, log=said.append),
    ):
        again.do("dataset")
        assert said[-1] == "[1/7] dataset: already done"
    other = pipeline.begin(ROOT / "data" / "profiles" / "alex.yaml", tmp_path / "run", base, seed=2, log=said.append)
    with pytest.raises(UserError, match="needs step 'dataset'"):  # what is there was made with another seed
        other.do("before")
    other.do("dataset")
    assert (tmp_path / "run" / "dataset" / "train.jsonl").read_bytes() != rows


def test_auto_follows_the_setting(monkeypatch, base):
    monkeypatch.setenv("PERSONAL_LLM_BASE", base)
    assert resolve("auto").path == resolve(None).path == base
