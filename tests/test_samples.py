"""Sample efficiency: training sets that differ in variety only, points measured once, curves pooled over seeds."""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from helpers import evaluation, results, samples, synthesis
from helpers.errors import UserError
from helpers.models import MODELS, ROOT
from helpers.profile import load_profile
from helpers.quality import question
from helpers.training import TrainSettings

# Northwind is a word of the tiny base, so that it can learn to say it in a few steps.
PROFILE = """owner: Alex Rivera
assistant: Alex's AI assistant
system_prompt: You are Alex Rivera's AI assistant.
perspectives: [owner, visitor]
facts:
  - topic: city
    value: Northwind
  - topic: pet
    name: Buddy
    species: dog
  - topic: custom
    question: What was Alex's first car?
    answer: Alex's first car was a Beetle.
    keywords: [Beetle]
"""
FACTS = {"name.value", "city.value", "pet.1.name", "pet.1.species", "custom.1"}
TUNED = [count for count in samples.COUNTS if count]
# Training and scoring take no time here. A result is written twice, into the run folder and then into the results; the
# process is killed when the third is whole but has no name yet.
CHILD = """
import os, signal, sys
from pathlib import Path
from helpers import files, samples, synthesis
samples.RESULTS, replace, done = Path(sys.argv[3]), os.replace, []
samples._point = lambda *args: ({}, {})
synthesis.contrast_rows = lambda *args: []
def killed(*paths):
    done.append(paths)
    os.kill(os.getpid(), signal.SIGKILL) if len(done) == 5 else replace(*paths)
files.os.replace = killed
samples.measure(sys.argv[1], sys.argv[2], sys.argv[4], (0, 1, 3), (1, 2))
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "small.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(profile) -> tuple[list[dict], list[dict]]:
    return samples.material(load_profile(profile), 1, MODELS["pocket"])


@pytest.fixture(scope="module")
def sets(made) -> dict[int, list[dict]]:
    return {count: samples.training_set(made[0], count, 1) for count in TUNED}


@pytest.fixture
def base(tiny_base, tmp_path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "tiny")


@pytest.fixture
def measured(base, profile, tmp_path, monkeypatch):
    """measure() with a stand-in for training and scoring; returns the (count, seed) of the points it was called for.

    It takes three of four questions as answered rightly where each fact has three examples, and so on.
    """
    work = []

    def point(base, chosen, questions, folder, settings, log):
        folder.mkdir(parents=True)
        count = len({text(row) for row in told(chosen) if row["fact"] == "city.value"})
        work.append((count, settings.seed))
        return {name: results.metric(count, 4) for name in samples.METRICS}, {}

    def run(counts=(0, 1, 3), seeds=2) -> list[tuple[int, int]]:
        work.clear()
        samples.measure(str(base), profile, tmp_path / "work", counts, range(1, seeds + 1), lambda line: None)
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["tiny"]  # nothing else is left
        return list(work)

    monkeypatch.setattr(samples, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(samples, "_point", point)
    monkeypatch.setattr(synthesis, "contrast_rows", lambda *args: [])  # they take most of the time
    return run


def text(row: dict) -> str:
    return json.dumps(row["messages"])


def told(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["kind"] == "fact"]


def plain(words: str) -> str:
    return " ".join(re.findall(r"\w+", words.lower()))


# -- training sets


def test_the_examples_of_a_count_are_among_those_of_the_next(made, sets):
    for fewer, more in zip(TUNED, TUNED[1:]):
        assert {text(row) for row in told(sets[fewer])} < {text(row) for row in told(sets[more])}
    first = [samples.drawn(made[0], 1, seed)["city.value"][0] for seed in range(1, 11)]
    assert len({text(row) for row in first}) > 5  # which one comes first is drawn


@pytest.mark.parametrize("count", TUNED)
def test_each_fact_has_as_many_sights_and_its_examples_share_them(made, sets, count):
    sights = defaultdict(Counter)
    for row in told(sets[count]):
        sights[row["fact"]][text(row)] += 1
    there = Counter(row["fact"] for row in told(made[0]))
    assert set(sights) == FACTS
    for fact, seen in sights.items():
        assert len(seen) == min(count, there[fact])
        assert seen.total() == samples.SIGHTS == 300
        assert max(seen.values()) - min(seen.values()) <= 1


def test_there_are_enough_different_examples_for_the_largest_count(made):
    there = Counter(row["fact"] for row in told(made[0]))
    assert min(number for fact, number in there.items() if fact != "custom.1") >= max(samples.COUNTS)
    assert 200 < there["custom.1"] < max(samples.COUNTS)  # the user's own question has fewer forms: all are taken
    assert len(samples.drawn(made[0], 300, 1)["custom.1"]) == there["custom.1"]


def test_training_sets_differ_in_the_wording_of_their_facts_only(sets):
    kept = [[row["fact"] if row["kind"] == "fact" else text(row) for row in rows] for rows in sets.values()]
    assert len({len(rows) for rows in kept}) == 1 and all(rows == kept[0] for rows in kept)
    assert sets[1] != sets[3]


def test_all_contrast_rows_stay_and_combined_rows_go(made, sets):
    kinds = Counter(row["kind"] for row in made[0])
    assert kinds["combined"] and kinds["unknown"] > 500 and kinds["general"] > 100
    wanted = Counter(text(row) for row in made[0] if row["kind"] not in ("fact", "combined"))
    for rows in sets.values():
        assert Counter(text(row) for row in rows if row["kind"] != "fact") == wanted


def test_no_question_and_no_form_of_one_is_trained_on(made, sets):
    questions = made[1]
    assert {row["split"] for row in questions} == {"base", "heldout"}
    assert {(row["kind"], row["style"]) for row in questions} == {("fact", "plain")}
    assert {row["fact"] for row in questions} == FACTS - {"custom.1"} and len(questions) > 30
    for rows in sets.values():
        assert not {row["phrasing"] for row in rows} & {row["phrasing"] for row in questions}
        assert not {plain(question(row)) for row in rows} & {plain(question(row)) for row in questions}


def test_a_profile_that_only_its_owner_asks_has_as_many_examples(tmp_path):
    path = tmp_path / "owner.yaml"
    path.write_text(PROFILE.replace("[owner, visitor]", "[owner]"), encoding="utf-8")
    rows, _ = samples.material(load_profile(path), 1, MODELS["pocket"])
    there = Counter(row["fact"] for row in told(rows))
    assert {row["perspective"] for row in told(rows)} == {"owner"}
    assert min(there[fact] for fact in FACTS - {"custom.1"}) >= max(samples.COUNTS)


# -- points


def test_a_point_is_measured_once(measured, base, tmp_path):
    assert measured() == [(0, 1), (1, 1), (3, 1), (0, 2), (1, 2), (3, 2)]
    assert measured() == []
    (tmp_path / "results" / "tiny" / "1-2.json").unlink()
    assert measured() == [] and (tmp_path / "results" / "tiny" / "1-2.json").is_file()
    (tmp_path / "work" / "tiny" / "3-2.json").unlink()
    assert measured() == [(3, 2)]
    assert measured((0, 2), 3) == [(2, 1), (2, 2), (0, 3), (2, 3)]  # only what is new
    found = json.loads((tmp_path / "results" / "tiny" / "3-2.json").read_text(encoding="utf-8"))
    assert found["benchmark"] == "samples" and found["seed"] == 2
    assert found["settings"]["count"] == found["settings"]["examples_mean"] == 3
    assert found["settings"]["rows"] >= len(FACTS) * samples.SIGHTS
    assert found["metrics"]["recall_heldout"]["value"] == 0.75


def test_another_base_profile_or_setting_is_measured_again(measured, base, profile, monkeypatch):
    assert measured((1,), 1) == [(1, 1)]
    (base / "README.md").write_text("does not count", encoding="utf-8")
    assert measured((1,), 1) == []
    for change in ("model.safetensors", "chat_template.jinja"):
        with open(base / change, "ab") as file:
            file.write(b" ")
        assert measured((1,), 1) == [(1, 1)]
        assert measured((1,), 1) == []
    monkeypatch.setattr(samples, "TrainSettings", functools.partial(TrainSettings, rank=8))
    assert measured((1,), 1) == [(1, 1)]
    monkeypatch.setattr(samples, "SIGHTS", 200)
    assert measured((1,), 1) == [(1, 1)]
    kept = profile.read_text(encoding="utf-8")
    try:
        profile.write_text(kept.replace("Northwind", "Boston"), encoding="utf-8")
        assert measured((1,), 1) == [(1, 1)]
    finally:
        profile.write_text(kept, encoding="utf-8")


def test_a_kill_leaves_whole_results_only_and_the_next_call_goes_on(measured, base, profile, tmp_path):
    out = tmp_path / "results"
    command = [sys.executable, "-c", CHILD, str(base), str(profile), str(out), str(tmp_path / "work")]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    whole = sorted(out.glob("*/*.json"))
    assert [path.name for path in whole] == ["0-1.json", "1-1.json"]
    assert all(json.loads(path.read_text(encoding="utf-8"))["settings"]["profile"] == "small" for path in whole)
    assert measured() == [(3, 1), (0, 2), (1, 2), (3, 2)]


def test_a_large_base_is_trained_on_every_row_too(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(samples.engines, "size_of", lambda base: 1e9)
    measured((1,), 1)
    found = json.loads((tmp_path / "results" / "tiny" / "1-1.json").read_text(encoding="utf-8"))
    assert found["settings"]["training"]["epochs"] == 1 and found["settings"]["training"]["plus"] == 1


def test_a_wrong_base_or_profile_is_refused(measured, profile, tmp_path):
    with pytest.raises(UserError):
        samples.measure("no-such-base", profile, tmp_path)
    with pytest.raises(UserError):
        samples.measure(None, tmp_path / "missing.yaml", tmp_path)


def test_a_base_is_trained_and_scored(base, profile, tmp_path, monkeypatch):
    """The whole way with a tiny base and few rows: it does not know the city until it is trained, then it does."""
    make, asked = synthesis.synthesize, synthesis.evaluation_questions

    def few(*args) -> list[dict]:
        rows = make(*args)
        return [row for row in rows if row["fact"] == "city.value"] + [row for row in rows if row["kind"] != "fact"][:4]

    def about_the_city(*args) -> list[dict]:
        return [row for row in asked(*args) if row["fact"] == "city.value"]

    monkeypatch.setattr(synthesis, "synthesize", few)
    monkeypatch.setattr(synthesis, "evaluation_questions", about_the_city)
    quick = functools.partial(TrainSettings, engine="peft", learning_rate=1e-2, plus=1, strength=1)
    monkeypatch.setattr(samples, "TrainSettings", quick)
    monkeypatch.setattr(samples, "SIGHTS", 200)
    monkeypatch.setattr(samples, "RESULTS", tmp_path / "results")
    answers = functools.partial(evaluation.transformers_answers, max_new_tokens=20)
    monkeypatch.setattr(evaluation, "transformers_answers", answers)
    samples.measure(str(base), profile, tmp_path / "work", (0, 1, 3), (1,), lambda line: None)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["tiny"]  # nothing else is left
    files = [tmp_path / "results" / "tiny" / f"{count}-1.json" for count in (0, 1, 3)]
    untuned, one, three = (json.loads(path.read_text(encoding="utf-8")) for path in files)
    assert untuned["trained"] == {} and untuned["settings"]["rows"] == 0
    assert one["trained"]["steps"] == three["trained"]["steps"] > 10
    assert one["settings"]["rows_and_questions"] != three["settings"]["rows_and_questions"]
    for name in samples.METRICS:
        recalls = [point["metrics"][name] for point in (untuned, one, three)]
        assert len({recall["n"] for recall in recalls}) == 1 and recalls[0]["n"] >= 6
        assert recalls[0]["value"] == 0 and min(recalls[1]["value"], recalls[2]["value"]) > 0.5


# -- curves


def point(count: int, seed: int, right: int, asked: int, **changes) -> dict:
    settings = {
        "count": count,
        "examples_mean": count - seed / 2,
        "profile": "small",
        "sights": 300,
        "base": "b",
        "training": {"rank": 8},
    }
    return {
        "settings": settings | changes,
        "seed": seed,
        "metrics": {name: results.metric(right, asked) for name in samples.METRICS},
    }


def write(folder: Path, base: str, *points: dict) -> None:
    (folder / base).mkdir(parents=True, exist_ok=True)
    for one in points:
        path = folder / base / f"{one['settings']['count']}-{one['seed']}.json"
        path.write_text(json.dumps(one), encoding="utf-8")


def test_a_curve_pools_the_questions_of_its_seeds(tmp_path):
    assert samples.read(tmp_path / "none") == {}
    write(tmp_path, "pocket", point(10, 1, 80, 100), point(10, 2, 60, 60), point(3, 1, 10, 100), point(100, 1, 9, 9))
    write(tmp_path, "other", point(0, 1, 0, 50, base="another"))
    (tmp_path / "pocket" / ".10-3.json.x1y2").write_text("{", encoding="utf-8")  # what a kill may leave
    found = samples.read(tmp_path)
    assert list(found) == ["other", "pocket"] and list(found["pocket"]) == [3, 10, 100]
    shares = dict.fromkeys(samples.METRICS, results.metric(140, 160))
    assert found["pocket"][10] == {**shares, "seeds": 2, "examples_mean": 9.25}
    assert found["pocket"][3]["recall_heldout"] == results.metric(10, 100) and found["pocket"][3]["seeds"] == 1
    assert found["other"] == {
        0: {**dict.fromkeys(samples.METRICS, results.metric(0, 50)), "seeds": 1, "examples_mean": -0.5}
    }


@pytest.mark.parametrize("key", samples.SAME)
def test_points_that_differ_in_more_than_count_and_seed_are_no_curve(tmp_path, key):
    write(tmp_path, "pocket", point(1, 1, 1, 4), point(3, 2, 3, 4, **{key: "another"}))
    with pytest.raises(UserError, match=f"differ in their {key}"):
        samples.read(tmp_path)


def test_what_readers_reported_belongs_to_bases_of_the_registry():
    assert len({report.model for report in samples.REPORTS}) == len(samples.REPORTS) == 4
    for report in samples.REPORTS:
        assert report.model in MODELS and f"{100 * report.recall:.0f} %" in report.said
        assert report.samples is None or f"{report.samples} samples" in report.said
    llama = samples.REPORTS[0]
    assert f"{2 * MODELS[llama.model].parameters / 1e9:.2f} GB" in llama.said  # 2 bytes a weight: not one of 8B
