"""Which base model in which quantisation fits hard limits, and what misses them by how much.

A row is a flat dict: model (a key of `helpers.models.MODELS`), quant, threads, file_mb, peak_ram_mb (MB of 10^6 bytes),
tokens_per_s, first_token_s (of a 200-token prompt), licence. The speeds are None where nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from helpers.errors import UserError
from helpers.models import MODELS
from helpers.show import Table
from helpers.speed import NEW_TOKENS as ANSWER_TOKENS

# Of a machine's memory, what a system without a desktop keeps. A container keeps less, a desktop with a browser more:
# there, give what is free and 0.5 on top.
SYSTEM_GB = 0.5
OPEN_LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause")  # approved by the Open Source Initiative
# https://cloud.google.com/run/pricing: us-central1 (tier 1), billed by request; a stored copy, read in November 2026.
USD_PER_VCPU_SECOND = 0.000024
USD_PER_GIB_SECOND = 0.0000025
USD_PER_REQUEST = 0.40 / 1e6
# https://cloud.google.com/run/docs/configuring/services/cpu: vCPUs sold, each with the least and the most GiB.
VCPUS = {1: (0.5, 4), 2: (0.5, 8), 4: (2, 16), 6: (4, 24), 8: (4, 32)}
GIB = (0.5, 1, 2, 4, 8, 16, 24, 32)  # sizes between may be set too, but leave little to spare
SLACK = 1e-9  # relative: what sums of decimal fractions miss must not decide

# Limit -> what to give, decimals, the sentence. "USD", as two dollar signs in a line are a formula to a notebook.
_TEXTS = {
    "max_mb": ("MB above 0, for example 400", 0, "{} MB of at most {} MB: {} MB too large"),
    "ram_gb": (
        f"the whole machine's GB, above the system's {SYSTEM_GB}, for example 2",
        0,
        "{} MB of memory of at most {} MB beside the system: {} MB too much",
    ),
    "min_tokens_per_s": ("tokens/s above 0, for example 10", 1, "{} tokens/s of at least {}: {} too slow"),
    "max_usd_per_1000_chats": ("USD above 0, for example 0.25", 2, "{} USD per 1,000 chats of at most {}: {} too dear"),
}
_UNKNOWN = {"min_tokens_per_s": "tokens/s", "max_usd_per_1000_chats": "price"}


@dataclass(frozen=True)
class Limits:
    """What a model must keep to; None is no limit. Raises UserError for a limit that is no limit.

    max_mb: the file, MB of 10^6 bytes. ram_gb: the whole machine's memory, GB of 10^9 bytes, of which the operating
    system keeps SYSTEM_GB. licence: "open" lets only OPEN_LICENCES pass, so not Llama's community licences.
    """

    max_mb: float | None = None
    ram_gb: float | None = None
    min_tokens_per_s: float | None = None
    max_usd_per_1000_chats: float | None = None
    licence: str | None = None

    def __post_init__(self):
        for name, (give, _, _) in _TEXTS.items():
            value, least = getattr(self, name), SYSTEM_GB if name == "ram_gb" else 0
            number = isinstance(value, Real) and not isinstance(value, bool)
            if value is not None and not (number and least < value < math.inf):
                raise UserError(f"{value!r} is no usable limit", name, f"Give {give}, or None for no limit.")
        if self.licence not in (None, "open"):
            mend = f'Give "open" for {", ".join(OPEN_LICENCES)}, or None for any licence.'
            raise UserError(f"{self.licence!r} is no kind of licence", "licence", mend)


@dataclass(frozen=True)
class Failure:
    """A limit that is not kept; str() is the sentence. Units are the limit's, of ram_gb the MB left for the model."""

    limit: str
    have: float | str
    allowed: float | str

    @property
    def overrun(self) -> float:
        """By what share of the limit it is missed (1: twice too much or half as fast); a licence: infinite."""
        if self.limit == "licence":
            return math.inf
        slow = self.limit == "min_tokens_per_s"
        return (self.allowed / self.have if slow else self.have / self.allowed) - 1

    def __str__(self) -> str:
        if self.limit == "licence":
            return f"{self.have} is not an open-source licence"
        _, decimals, text = _TEXTS[self.limit]
        over = float(f"{abs(self.have - self.allowed):.3g}")
        decimals = max(decimals, -math.floor(math.log10(over)))  # never "100 MB of at most 100 MB: 0 MB too large"
        return text.format(f"{self.have:.{decimals}f}", f"{self.allowed:.10g}", f"{over:.{decimals}f}")


@dataclass(frozen=True)
class Verdict:
    """A row, the limits it breaks (in the order of Limits) and the names of those nobody can judge without a speed."""

    row: Mapping
    failed: tuple[Failure, ...]
    unknown: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.failed and not self.unknown

    def __str__(self) -> str:
        if self.failed:
            return str(max(self.failed, key=lambda failure: failure.overrun))
        return f"not measured: {', '.join(_UNKNOWN[name] for name in self.unknown)}" if self.unknown else "fits"


def usd_per_1000_chats(row: Mapping) -> float | None:
    """US dollars that Cloud Run takes for 1,000 chats, one at a time: a 200-token prompt answered in 60 tokens.

    On the smallest container with a vCPU for each thread and memory for the peak, next size up in GIB, as if a vCPU
    were as fast as a core here. Not counted: cold starts, the free tier, and the rounding up to full 0.1 seconds.
    None where the speed was not measured and where Cloud Run has no container of that size.
    """
    needed = row["peak_ram_mb"] * 1e6 / 2**30
    fitting = (
        (vcpus, gib)
        for vcpus, (least, most) in VCPUS.items()
        for gib in GIB
        if vcpus >= row["threads"] and gib >= needed and least <= gib <= most
    )
    vcpus, gib = next(fitting, (None, None))
    if row["tokens_per_s"] is None or vcpus is None:
        return None
    seconds = row["first_token_s"] + ANSWER_TOKENS / row["tokens_per_s"]
    return 1000 * (seconds * (vcpus * USD_PER_VCPU_SECOND + gib * USD_PER_GIB_SECOND) + USD_PER_REQUEST)


def _verdict(row: Mapping, limits: Limits) -> Verdict:
    ram_mb = None if limits.ram_gb is None else 1000 * (limits.ram_gb - SYSTEM_GB)
    pairs = {
        "max_mb": (row["file_mb"], limits.max_mb),
        "ram_gb": (row["peak_ram_mb"], ram_mb),
        "min_tokens_per_s": (row["tokens_per_s"], limits.min_tokens_per_s),
        "max_usd_per_1000_chats": (usd_per_1000_chats(row), limits.max_usd_per_1000_chats),
    }
    asked = {name: pair for name, pair in pairs.items() if pair[1] is not None}
    failed = [Failure(name, *pair) for name, pair in asked.items() if pair[0] is not None]
    failed = [failure for failure in failed if failure.overrun > SLACK]
    if limits.licence and row["licence"] not in OPEN_LICENCES:
        failed.append(Failure("licence", row["licence"], limits.licence))
    return Verdict(row, tuple(failed), tuple(name for name, pair in asked.items() if pair[0] is None))


def judge(rows: Iterable[Mapping], limits: Limits) -> list[Verdict]:
    """A verdict for each row. First what fits: the larger model, and of one model the larger file, as it lost less.

    Then what does not, by its worst overrun: what only lacks a measurement, near misses; those with the wrong licence
    are last, in the same order.
    """

    def order(verdict: Verdict) -> tuple:
        overruns = [failure.overrun for failure in verdict.failed]
        worst = max(filter(math.isfinite, overruns), default=0.0)
        size = MODELS[verdict.row["model"]].parameters, verdict.row["file_mb"]
        return not verdict.fits, math.inf in overruns, worst, -size[0], -size[1]

    return sorted((_verdict(row, limits) for row in rows), key=order)


def table(verdicts: Iterable[Verdict]) -> Table:
    """The verdicts, a line each; MB of 10^6 bytes, a dash where nothing was measured."""
    lines = []
    for verdict in verdicts:
        row, usd = verdict.row, usd_per_1000_chats(verdict.row)
        speed = "–" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:.1f}"
        threads = row["threads"] if row["measured"] else "–"
        cells = [row["model"], row["quant"], threads, f"{row['file_mb']:.1f}", f"{row['peak_ram_mb']:.0f}"]
        lines.append([*cells, speed, "–" if usd is None else f"{usd:.3f}", verdict])
    head = ["model", "quantisation", "threads", "file MB", "RAM MB", "tokens/s", "USD per 1,000 chats", "verdict"]
    return Table(head, lines)


def best_of_each(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The first verdict of each model, of a list that `judge` has put in order."""
    first: dict[str, Verdict] = {}
    for verdict in verdicts:
        first.setdefault(verdict.row["model"], verdict)
    return list(first.values())
