"""The published numbers: pooled over runs, into results and the README's table."""

import pytest

from helpers import bench, results
from helpers.errors import UserError


def run(seed: int, right: int, asked: int = 100) -> dict:
    scores = {name: results.metric(right, asked) for name in bench.SHOWN}
    return {
        "model": "pocket",
        "hardware": {"cores": 2, "cpu": "CPU"},
        "packages": {},
        "commit": "c0ffee",
        "data_sha256": f"data of {seed}",
        "seed": seed,
        "started": "now",
        "metrics": scores,
        "before": {"recall_base": results.metric(0, asked)},
        "gguf": {"recall_base": results.metric(right, asked)},
        "steps": {"training": {"seconds": 90.0 + seed, "peak_ram_mb": 2000 + seed}},
        "seconds": 90.0 + seed,
        "peak_ram_mb": 2000 + seed,
        "files_mb": {"model-q8_0.gguf": 6.27},
    }


def test_runs_are_pooled_by_their_questions_and_each_keeps_its_numbers():
    found = bench.pool("alex", [run(1, 98), run(2, 140, 140)])
    assert found["metrics"]["recall_base"] == results.metric(238, 240)
    assert found["before"] == {"recall_base": results.metric(0, 240)}
    assert found["gguf"] == {"recall_base": results.metric(238, 240)}
    assert found["seed"] == [1, 2] and found["seconds"] == 92.0 and found["peak_ram_mb"] == 2002
    assert [one["metrics"]["recall_base"]["n"] for one in found["runs"]] == [100, 140]
    assert [one["data_sha256"] for one in found["runs"]] == ["data of 1", "data of 2"]


@pytest.mark.parametrize("key", bench.SAME)
def test_runs_that_differ_in_more_than_the_seed_are_not_pooled(key):
    with pytest.raises(UserError, match=f"differ in their {key}"):
        bench.pool("alex", [run(1, 98), {**run(2, 98), key: "another"}])


def test_a_metric_that_some_runs_lack_is_pooled_over_the_others():
    nothing = results.metric(0, 0)
    found = results.pooled([{"a": results.metric(1, 2), "b": nothing}, {"a": results.metric(2, 2), "c": nothing}])
    assert found == {"a": results.metric(3, 4), "b": nothing, "c": nothing}


def test_the_readme_shows_the_pooled_numbers_between_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n", encoding="utf-8")
    summaries = [bench.pool(name, [run(1, 98), run(2, 100)]) for name in ("alex", "mira")]
    bench.write_between(bench.table(summaries), readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    line = next(line for line in text.splitlines() if line.startswith(f"| {bench.SHOWN['recall_base']}"))
    assert line.count("99.0 % (0.0 %), n=200") == 2
    assert "98.0 to 100.0 % in a single run" in text and "91 to 92 s" in text and "2.0 GB" in text


def test_a_readme_without_markers_stays_as_it_is(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing to see", encoding="utf-8")
    with pytest.raises(UserError, match="markers"):
        bench.write_between("text", readme)
    assert readme.read_text(encoding="utf-8") == "nothing to see"


def test_the_readmes_table_is_drawn_from_the_results():
    found = [bench._read(path) for path in sorted(bench.RESULTS.glob("*.json"))]
    assert [one["profile"] for one in found] == ["alex", "mira", "tomasz"]
    assert bench.table(found) in (bench.ROOT / "README.md").read_text(encoding="utf-8")
    for one in found:
        again = bench.pool(one["profile"], [{**run, **{k: one[k] for k in bench.SAME}} for run in one["runs"]])
        assert again == one
