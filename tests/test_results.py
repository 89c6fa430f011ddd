"""Results: intervals, and everything that is needed to repeat a number."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import time

import pytest

from helpers import results
from helpers.models import ROOT


@pytest.mark.parametrize(("k", "n"), [(0, 100), (100, 100), (50, 100), (98, 100), (3, 7)])
def test_wilson(k, n):
    z, share = 1.959963984540054, k / n  # the textbook's closed formula
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    found = results.metric(k, n)
    assert found["value"] == share and found["n"] == n
    scale = 1 + z * z / n
    assert found["ci95"] == pytest.approx([(middle - half) / scale, (middle + half) / scale], abs=2e-6)


def test_nothing_counted_is_no_number():
    assert results.metric(0, 0) == {"value": None, "n": 0, "ci95": [0.0, 1.0]}


@pytest.mark.parametrize(("k", "n"), [(-1, 2), (3, 2)])
def test_impossible_counts(k, n):
    with pytest.raises(ValueError, match="not a share"):
        results.metric(k, n)


def test_record_has_the_contracts_fields_and_is_json(tmp_path):
    data = tmp_path / "eval.jsonl"
    data.write_bytes(b"{}\n")
    found = results.record(
        "recall",
        "tiny",
        {"recall": results.metric(9, 10)},
        {"quant": "q8_0"},
        time.time() - 2,
        seed=1,
        data=data,
    )
    assert list(found) == [
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
    ]
    assert json.loads(json.dumps(found)) == found
    assert set(found["hardware"]) == {"cpu", "cores", "ram_gb", "gpu"} and found["hardware"]["cores"] >= 1
    assert found["packages"]["scipy"] and found["packages"]["python"].startswith("3.")
    assert found["data_sha256"] == hashlib.sha256(b"{}\n").hexdigest()
    assert found["started"].endswith("+00:00") and 2 <= found["seconds"] < 60
    assert 10 < found["peak_ram_mb"] < 1e6


def test_checksum_of_several_files_depends_on_each(tmp_path):
    def checksum(*texts):
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / str(number))
            files[-1].write_text(text)
        return results.record("b", "m", {}, {}, time.time(), seed=1, data=files)["data_sha256"]

    assert len({checksum("a", "b"), checksum("a", "c"), checksum("b", "a"), checksum("a"), checksum()}) == 5


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        check=True,
        capture_output=True,
    )


def test_commit(tmp_path):
    assert results.commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    assert results.commit.__wrapped__(tmp_path) == "unknown"  # no commit yet
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    assert len(results.commit.__wrapped__(tmp_path)) == 40
    (tmp_path / "inner").mkdir()
    assert results.commit(tmp_path / "inner") == "unknown"  # installed inside somebody else's repository


def test_commit_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results.commit.__wrapped__(tmp_path) == "unknown"
    assert results.gpu() is None


def shares(data):
    """All metrics within nested data."""
    if isinstance(data, dict) and data.keys() == {"value", "n", "ci95"}:
        return [data]
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [metric for one in inner for metric in shares(one)]


TRIALS = json.loads((ROOT / "data" / "results" / "trials.json").read_text(encoding="utf-8"))


def test_what_trials_share_out_is_the_sum_of_their_runs():
    pooled = {
        (name, variant): scores for name, trial in TRIALS.items() for variant, scores in trial.get("pooled", {}).items()
    }
    assert len(pooled) >= 8
    for (name, variant), scores in pooled.items():
        runs = [run["metrics"] for run in TRIALS[name]["runs"] if run["variant"] == variant]
        for key, one in scores.items():
            right = sum(round(run[key]["value"] * run[key]["n"]) for run in runs)
            assert one == results.metric(right, sum(run[key]["n"] for run in runs)), (name, variant, key)


def test_every_percentage_told_of_a_trial_stands_in_its_file():
    found = shares(TRIALS)
    assert len(found) > 200 and all(one == results.metric(round(one["value"] * one["n"]), one["n"]) for one in found)
    told = (ROOT / "data" / "results" / "README.md").read_text(encoding="utf-8").split("<!-- trials:begin -->")[1]
    told = " ".join(told.split("<!-- trials:end -->")[0].split())
    numbers = re.findall(r"\b\d+\.\d\b", told)
    assert len(numbers) > 50 and set(numbers) <= {f"{100 * one['value']:.1f}" for one in found}
    counted = re.findall(r"(\d+\.\d) %[^()%]*, n=([\d,]+)\)", told)  # those that name their count: 52.4 % (…, n=42)
    measured = {(f"{100 * one['value']:.1f}", f"{one['n']:,}") for one in found}
    assert len(counted) >= 14 and set(counted) <= measured, set(counted) - measured
    whole = TRIALS["all_forms"]["pooled"]["shipped"]["recall_heldout"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"right for {100 * whole['value']:.1f} % of {whole['n']:,} questions" in readme
