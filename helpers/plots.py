"""Figures, drawn from results files and from nothing else. Readable in grey; error bars are 95 % intervals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

DARK, MID, LIGHT = "#1b4965", "#62929e", "#c8d5d9"
_STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
NAMES = {
    "recall_base": "recall: forms the base knew",
    "recall_heldout": "recall: forms nobody saw",
    "recall_noisy": "recall: carelessly typed",
    "recall_reversed": "recall: asked backwards",
    "recall_mentions": "recall: a value in the question",
    "recall_custom": "recall: your own questions",
    "abstention": "says it does not know",
    "leaks": "leaks (lower is better)",
    "general": "general knowledge",
    "known_people": "people the base knew",
    "combined": "two facts at once",
    "identity": "who it is",
}


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[tuple]:
    """A figure of that size in inches and its axes, in the style of all figures; closed at the end."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        yield figure, axes
        plt.close(figure)


def interval(metric: Mapping) -> tuple[float, float]:
    """Distances from the value to both ends of its interval, in per cent."""
    low, high = metric["ci95"]
    return max(0.0, 100 * (metric["value"] - low)), max(0.0, 100 * (high - metric["value"]))


def loss_curve(history: list[Mapping], path: Path | None = None):
    """Training loss (nats per answer token, log scale) over epochs. `history`: [{step, epoch, loss}].

    A batch is small and its loss jumps: a long history is drawn as means over at most 40 stretches of equal length, a
    shorter rest joins the last one.
    """
    with canvas(6.5, 3) as (figure, axes):
        size = -(-len(history) // 40)
        parts = [history[start : start + size] for start in range(0, len(history), size)]
        if len(parts) > 1 and len(parts[-1]) < size:
            parts[-2:] = [[*parts[-2], *parts[-1]]]
        epochs = [sum(h["epoch"] for h in part) / len(part) for part in parts]
        losses = [sum(h["loss"] for h in part) / len(part) for part in parts]
        axes.plot(epochs, losses, color=DARK, marker="o", markersize=3)
        axes.set(
            xlabel="epochs",
            ylabel="loss (nats per answer token)",
            yscale="log",
            title=f"The loss falls from {losses[0]:.2f} to {losses[-1]:.3f}",
        )
        return finish(figure, path)


def before_after(before: Mapping, after: Mapping, path: Path | None = None):
    """Scores of the base and of the tuned model side by side, each with its interval."""
    names = [name for name in NAMES if name in before and name in after]
    with canvas(7.5, 0.5 * len(names) + 1.2) as (figure, axes):
        for offset, metrics, colour, label in ((0.2, before, LIGHT, "before"), (-0.2, after, MID, "after")):
            places = [len(names) - 1 - i + offset for i in range(len(names))]
            errors = list(zip(*(interval(metrics[n]) for n in names), strict=True))
            axes.barh(
                places,
                [100 * metrics[n]["value"] for n in names],
                0.38,
                color=colour,
                label=label,
                xerr=errors,
                error_kw={"ecolor": "#111111", "capsize": 2, "linewidth": 1},
                edgecolor="#333333",
                linewidth=0.5,
            )
        axes.set(
            yticks=range(len(names)),
            yticklabels=[f"{NAMES[n]}  (n={after[n]['n']})" for n in reversed(names)],
            xlim=(0, 104),
            xlabel="per cent of the questions",
            title=f"Recall {100 * before['recall_base']['value']:.0f} % → {100 * after['recall_base']['value']:.0f} %",
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return finish(figure, path)


def recall_by(groups: Mapping[str, Mapping], what: str, path: Path | None = None):
    """Recall of each group ("fact", "style" …) with its interval, the weakest below."""
    names = sorted(groups, key=lambda n: groups[n]["value"])
    with canvas(7, 0.3 * len(names) + 1.1) as (figure, axes):
        values = [100 * groups[n]["value"] for n in names]
        errors = list(zip(*(interval(groups[n]) for n in names), strict=True))
        axes.errorbar(values, range(len(names)), xerr=errors, fmt="o", color=DARK, ecolor=MID, capsize=3)
        axes.set(
            yticks=range(len(names)),
            yticklabels=[f"{n}  (n={groups[n]['n']})" for n in names],
            xlim=(-2, 104),
            ylim=(-0.6, len(names) - 0.4),
            xlabel="recall in per cent, with 95 % interval",
            title=f"Weakest {what}: {names[0]}, {values[0]:.0f} %"
            if values[0] < values[-1]
            else f"Every {what}: {values[0]:.0f} %",
        )
        return finish(figure, path)


def against_forms(results: Mapping[int, Mapping[str, Mapping]], path: Path | None = None):
    """What a base answers in forms that it never saw, against how many its corpus had for an attribute.

    `results`: number of forms -> the scores of `helpers.pretraining.probes.score_base`.
    """
    names = {
        "reading, forms held out": (DARK, "o", "read from the prompt"),
        "known people, forms held out": (MID, "^", "known by heart"),
    }
    counts = sorted(results)
    with canvas(6.5, 3.6) as (figure, axes):
        for name, (colour, marker, label) in names.items():
            metrics = [results[count][name] for count in counts]
            values = [100 * metric["value"] for metric in metrics]
            errors = list(zip(*map(interval, metrics), strict=True))
            axes.errorbar(counts, values, yerr=errors, color=colour, marker=marker, capsize=3, label=label)
        axes.set(xscale="log", xlabel="question forms an attribute in the corpus", ylabel="right answers in per cent")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        ends = [[100 * results[count][name]["value"] for count in (counts[0], counts[-1])] for name in names]
        read, heart = (f"{least:.0f} to {most:.0f} %" for least, most in ends)
        axes.set_title(f"{counts[0]} to {counts[-1]} forms: {read} read, {heart} by heart")
        axes.legend(loc="best")
        return finish(figure, path)


def sizes(files: Mapping[str, float], path: Path | None = None):
    """File sizes in MB (10^6 bytes)."""
    names = sorted(files, key=files.get, reverse=True)
    with canvas(6, 0.4 * len(names) + 1) as (figure, axes):
        bars = axes.barh(range(len(names)), [files[n] for n in names], color=MID, edgecolor="#333333", linewidth=0.5)
        axes.bar_label(bars, [f"{files[n]:.1f} MB" for n in names], padding=4)
        axes.set(
            yticks=range(len(names)),
            yticklabels=names,
            xlim=(0, 1.2 * max(files.values())),
            xlabel="MB",
            title=f"The smallest file has {min(files.values()):.1f} MB",
        )
        axes.invert_yaxis()
        return finish(figure, path)


def finish(figure, path: Path | None):
    """Save the figure (atomically) where a path is given, and return it for a notebook to show."""
    if path is not None:
        import io

        from helpers.files import write_bytes

        image = io.BytesIO()
        figure.savefig(image, format="png", metadata={"Software": None})
        write_bytes(path, image.getvalue())
    return figure
