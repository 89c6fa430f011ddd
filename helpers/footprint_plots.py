"""Figures of notebook 01: size against speed, memory against context length, recall against examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.constraints import Limits
from helpers.plots import DARK, LIGHT, MID, canvas, finish, interval

MARKERS = "osD^vPX"
COLOURS = (DARK, MID, "#b5651d", "#7a4988", "#555555", "#999999", "#c2a83e")


def _looks(names: Sequence[str]) -> dict[str, dict]:
    """A colour and, for readers in grey, a marker for each name."""
    return {n: {"color": COLOURS[i % 7], "marker": MARKERS[i % 7]} for i, n in enumerate(names)}


def size_speed(rows: Sequence[Mapping], limits: Limits, path: Path | None = None):
    """File size against generated tokens/s of measured rows (one number of threads), with the limits drawn in."""
    rows = [row for row in rows if row["measured"]]
    looks = _looks(list(dict.fromkeys(row["model"] for row in rows)))
    most, least = limits.max_mb or float("inf"), limits.min_tokens_per_s or 0.0
    inside = [row for row in rows if row["file_mb"] <= most and row["tokens_per_s"] >= least]
    with canvas(7.5, 4.6) as (figure, axes):
        for name, look in looks.items():
            mine = sorted((row for row in rows if row["model"] == name), key=lambda row: row["file_mb"])
            axes.plot(
                [row["file_mb"] for row in mine],
                [row["tokens_per_s"] for row in mine],
                linewidth=0.8,
                markersize=6,
                label=name,
                **look,
            )
        axes.set(xscale="log", yscale="log", ylabel="generated tokens a second")
        axes.set_xlabel(
            f"size of the GGUF file in MB (a line begins with {mine[0]['quant']} and ends with {mine[-1]['quant']})"
        )
        axes.margins(0.12)
        if limits.max_mb:
            axes.axvline(limits.max_mb, color="#111111", linestyle="--", linewidth=1)
            axes.annotate(f"{most:g} MB", (most, axes.get_ylim()[1]), (-4, -11), textcoords="offset points", ha="right")
        if limits.min_tokens_per_s:
            axes.axhline(least, color="#111111", linestyle=":", linewidth=1)
            axes.annotate(f"{least:g} tokens/s", (axes.get_xlim()[0], least), (4, 4), textcoords="offset points")
        axes.set_title(f"{len(inside)} of {len(rows)} files keep to the limits of size and speed")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return finish(figure, path)


def memory_context(
    curves: Mapping[str, Mapping[int, float]],
    measured: Mapping[str, Mapping[int, float]],
    ram_mb: float | None,
    path: Path | None = None,
):
    """Peak memory (MB) against context (tokens): lines by formula, points as measured, the limit drawn in.

    `curves` and `measured`: {model: {tokens: MB}}; a curve ends at the longest context of its model.
    """
    looks = _looks(list(curves))
    errors = [abs(curves[m][c] / mb - 1) for m, points in measured.items() for c, mb in points.items()]
    with canvas(7.5, 4.2) as (figure, axes):
        for name, curve in curves.items():
            look = looks[name]
            axes.plot(list(curve), list(curve.values()), color=look["color"], linewidth=1.2)
            points = measured.get(name, {})
            hollow = {} if points else {"markerfacecolor": "white"}
            shown = points or {max(curve): curve[max(curve)]}
            label = name if points else f"{name} (by formula)"
            axes.plot(list(shown), list(shown.values()), linestyle="", markersize=6, label=label, **hollow, **look)
        if ram_mb:
            axes.axhline(ram_mb, color="#111111", linestyle="--", linewidth=1)
            at = axes.get_yaxis_transform()
            axes.text(1.0, 1.04 * ram_mb, f"{ram_mb:.0f} MB", transform=at, ha="right")
        axes.set(xscale="log", yscale="log", xlabel="context in tokens", ylabel="peak memory in MB")
        ticks = sorted({context for curve in curves.values() for context in curve})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_title(f"The formula misses the measured memory by {100 * max(errors):.0f} % at most")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return finish(figure, path)


def recall_examples(curves: Mapping[str, Mapping[int, Mapping]], reports: Sequence, path: Path | None = None):
    """Recall in held-out forms against different examples of a fact: measured, with intervals; and what was reported.

    `curves`: `helpers.samples.read`; `reports`: `helpers.samples.REPORTS`, drawn hollow and without an interval, at
    their number of samples, or at the left edge where none was told.
    """
    with canvas(7.5, 4.2) as (figure, axes):
        for name, look in _looks(list(curves)).items():
            points = curves[name]
            metrics = [points[count]["recall_heldout"] for count in points]
            values = [100 * metric["value"] for metric in metrics]
            errors = list(zip(*map(interval, metrics), strict=True))
            axes.errorbar(list(points), values, yerr=errors, capsize=3, label=f"{name}, measured", **look)
        unknown = [report for report in reports if report.model not in curves]
        for place, report in enumerate(unknown):
            at = report.samples if report.samples is not None else -0.6
            marker = MARKERS[(place + 1) % 7]
            axes.plot(at, 100 * report.recall, marker, markersize=8, color=LIGHT, markeredgecolor="#333333")
            samples = f"{report.samples} samples" if report.samples else "samples not told"
            text = f"{report.model}: reported, {samples}; not yet run here"
            axes.plot([], [], marker, color=LIGHT, markeredgecolor="#333333", label=text)
        counts = sorted({count for points in curves.values() for count in points})
        axes.set_xscale("symlog", linthresh=1)
        untold = any(report.samples is None for report in unknown)
        axes.set_xticks([-0.6] * untold + counts, ["not told"] * untold + [str(count) for count in counts])
        axes.minorticks_off()
        axes.set(
            xlim=(-0.9, 1.4 * max(counts)),
            ylim=(-3, 104),
            xlabel="different examples of each fact",
            ylabel="recall in forms nobody saw, per cent",
        )
        first, last = ([p[count]["recall_heldout"]["value"] for p in curves.values()][0] for count in (1, max(counts)))
        name = next(iter(curves))
        axes.set_title(f"{name}: {100 * first:.0f} % with one example of a fact, {100 * last:.0f} % with {max(counts)}")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.18))
        return finish(figure, path)
