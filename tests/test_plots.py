"""Figures: written whole, nothing cut off, and true to the numbers."""

from __future__ import annotations

import pytest

from helpers import footprint_plots, plots
from helpers.constraints import Limits
from helpers.results import metric
from helpers.samples import REPORTS

METRICS = {
    name: metric(k, 100) for name, k in zip(plots.NAMES, (99, 71, 80, 60, 82, 100, 84, 3, 88, 90, 77, 100), strict=True)
}
BEFORE = {name: metric(k, 100) for name, k in zip(plots.NAMES, (0, 1, 0, 0, 0, 0, 90, 0, 92, 95, 0, 40), strict=True)}
HISTORY = [{"step": n, "epoch": n / 20, "loss": 3.2 * 0.93**n + 0.02} for n in range(1, 61)]
FACTS = {
    f"{topic}.{n}.value": metric(8 - n % 3, 8)
    for n, topic in enumerate(
        "age birthday city job education language skill hobby food colour music book project".split()
    )
}
LONG = {"project.12.description": metric(0, 4), "name.value": metric(4, 4)}
FORMS = {
    count: {
        "reading, forms held out": metric(right, 300),
        "known people, forms held out": metric(right - 30, 300),
    }
    for count, right in ((30, 156), (75, 190), (150, 214), (357, 240))
}
ROWS = [
    {"model": model, "quant": quant, "file_mb": size * share, "tokens_per_s": 9000 / size / share, "measured": True}
    for model, size in (("pocket", 15), ("smollm2-135m", 270), ("smollm2-360m", 725), ("llama-3.2-1b", 2480))
    for quant, share in (("f16", 1.0), ("q8_0", 0.53), ("q4_k_m", 0.37), ("q4_0_all", 0.28))
]
UNMEASURED = {"model": "llama-3.1-8b", "quant": "q4_0", "file_mb": 4655.0, "tokens_per_s": None, "measured": False}
LIMITS = Limits(max_mb=300, min_tokens_per_s=20)
CURVES = {
    "pocket": {512: 70.0, 2048: 76.0},
    "smollm2-135m": {512: 230.0, 2048: 266.0, 32768: 900.0},
    "llama-3.1-8b": {512: 8700.0, 2048: 8900.0, 32768: 12900.0},
}
MEASURED = {"pocket": {512: 70.0, 2048: 80.0}, "smollm2-135m": {512: 231.0, 2048: 266.0}}
RECALL = {
    "pocket": {
        count: {"recall_heldout": metric(right, 408)}
        for count, right in zip((0, 1, 3, 10, 30, 100, 300), (0, 90, 200, 290, 320, 340, 350), strict=True)
    }
}
SIZES = {"model-f16.gguf": 11.41, "model-q8_0.gguf": 6.13, "adapter.gguf": 1.2}


def drawn() -> dict:
    return {
        "loss": lambda path: plots.loss_curve(HISTORY, path),
        "before_after": lambda path: plots.before_after(BEFORE, METRICS, path),
        "before_after_few": lambda path: plots.before_after(
            {"recall_base": metric(0, 9)}, {"recall_base": metric(9, 9)}, path
        ),
        "recall_by_fact": lambda path: plots.recall_by(FACTS, "fact", path),
        "recall_by_long": lambda path: plots.recall_by(LONG, "fact", path),
        "against_forms": lambda path: plots.against_forms(FORMS, path),
        "size_speed": lambda path: footprint_plots.size_speed([*ROWS, UNMEASURED], LIMITS, path),
        "size_speed_no_limits": lambda path: footprint_plots.size_speed(ROWS, Limits(), path),
        "size_speed_far_limits": lambda path: footprint_plots.size_speed(ROWS, Limits(9000, None, 5000), path),
        "memory_context": lambda path: footprint_plots.memory_context(CURVES, MEASURED, 3500, path),
        "recall_examples": lambda path: footprint_plots.recall_examples(RECALL, REPORTS, path),
        "sizes": lambda path: plots.sizes(SIZES, path),
        "sizes_one": lambda path: plots.sizes({"model.gguf": 724.9}, path),
    }


@pytest.mark.parametrize("name", drawn())
def test_a_figure_is_written_and_nothing_is_cut_off(name, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    path = tmp_path / "plots" / f"{name}.png"
    figure = drawn()[name](path)
    assert plt.get_fignums() == []  # a notebook must not show it twice
    figure.draw_without_rendering()
    page, box = figure.bbox_inches, figure.get_tightbbox()
    assert box.x0 >= page.x0 - 0.02 and box.y0 >= page.y0 - 0.02
    assert box.x1 <= page.x1 + 0.02 and box.y1 <= page.y1 + 0.02
    with Image.open(path) as image:
        assert image.width > 300 and image.height > 100 and len(image.convert("L").getcolors(256)) > 5
    again = tmp_path / "again.png"
    drawn()[name](again)
    assert again.read_bytes() == path.read_bytes()


def texts(figure) -> list[str]:
    axes = figure.axes[0]
    found = [
        axes.get_title(loc="left"),
        axes.get_xlabel(),
        axes.get_ylabel(),
        *(t.get_text() for t in axes.texts),
    ]
    return found + [label.get_text() for label in axes.get_yticklabels()]


def overlaps(figure) -> list[tuple[str, str]]:
    figure.draw_without_rendering()
    axes = figure.axes[0]
    shown = [
        t
        for t in [
            *axes.get_yticklabels(),
            *axes.texts,
            axes._left_title,
            *(axes.get_legend().get_texts() if axes.get_legend() else []),
        ]
        if t.get_text()
    ]
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown]
    return [(a, b) for n, (a, one) in enumerate(boxes) for b, two in boxes[:n] if one.overlaps(two)]


@pytest.mark.parametrize("name", drawn())
def test_no_text_lies_on_another(name, tmp_path):
    assert overlaps(drawn()[name](None)) == []


def test_titles_tell_the_finding():
    assert "2.89 to 0.063" in texts(plots.loss_curve(HISTORY))[0]
    assert "0 % → 99 %" in texts(plots.before_after(BEFORE, METRICS))[0]
    weakest = texts(plots.recall_by(LONG, "fact"))
    assert weakest[0] == "Weakest fact: project.12.description, 0 %"
    assert texts(plots.recall_by({"a": metric(4, 4), "b": metric(4, 4)}, "style"))[0] == "Every style: 100 %"
    assert texts(plots.against_forms(FORMS))[0] == "30 to 357 forms: 52 to 80 % read, 42 to 70 % by heart"
    speed = texts(footprint_plots.size_speed([*ROWS, UNMEASURED], LIMITS))
    assert speed[0] == "10 of 16 files keep to the limits of size and speed" and {"300 MB", "20 tokens/s"} <= {*speed}
    memory = texts(footprint_plots.memory_context(CURVES, MEASURED, 3500))
    assert memory[0] == "The formula misses the measured memory by 5 % at most" and "3500 MB" in memory
    recall = footprint_plots.recall_examples(RECALL, REPORTS)
    assert texts(recall)[0] == "pocket: 22 % with one example of a fact, 86 % with 300"
    assert "1.2 MB" in texts(plots.sizes(SIZES))[0] and "6.1 MB" in texts(plots.sizes(SIZES))


def test_reports_are_told_apart_from_measurements():
    axes = footprint_plots.recall_examples(RECALL, REPORTS).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sum("reported" in label and "not yet run here" in label for label in labels) == len(REPORTS) == 4
    assert sum("measured" in label for label in labels) == 1
    llama = next(line for line in axes.lines if list(line.get_ydata()) == [95])
    assert list(llama.get_xdata()) == [10]  # the one report that told its number of samples
    both = {**RECALL, "qwen2.5-0.5b": RECALL["pocket"]}
    labels = [
        text.get_text() for text in footprint_plots.recall_examples(both, REPORTS).axes[0].get_legend().get_texts()
    ]
    assert sum("reported" in label for label in labels) == 3  # what is measured needs no report


def test_a_jump_of_the_last_step_does_not_end_the_loss_curve():
    history = [{"step": n, "epoch": n / 80, "loss": 0.1} for n in range(1, 82)] + [{"step": 82, "epoch": 1, "loss": 9}]
    drawn_losses = list(plots.loss_curve(history).axes[0].lines[0].get_ydata())  # 27 stretches of three and a rest
    assert len(drawn_losses) == 27 and drawn_losses[:-1] == pytest.approx([0.1] * 26) and drawn_losses[-1] < 2.4
    even = plots.loss_curve(history[:80]).axes[0].lines[0].get_ydata()
    assert len(even) == 40 and list(even) == pytest.approx([0.1] * 40)


def test_bars_and_intervals_are_the_numbers():
    axes = plots.before_after(BEFORE, METRICS).axes[0]
    after = {axes.get_yticks()[n]: label.get_text() for n, label in enumerate(axes.get_yticklabels())}
    widths = {round(bar.get_y() + bar.get_height() / 2 + 0.2): bar.get_width() for bar in axes.patches[len(METRICS) :]}
    for place, label in after.items():
        name = next(key for key, text in plots.NAMES.items() if label.startswith(text))
        assert widths[place] == pytest.approx(100 * METRICS[name]["value"]) and f"(n={METRICS[name]['n']})" in label
    low, high = plots.interval(metric(0, 10)), plots.interval(metric(10, 10))
    assert low[0] == 0 and low[1] == pytest.approx(27.75, abs=0.1) and high == pytest.approx((27.75, 0), abs=0.1)
    bars = plots.sizes(SIZES).axes[0].patches
    assert [bar.get_width() for bar in bars] == sorted(SIZES.values(), reverse=True)
