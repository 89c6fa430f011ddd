"""Limits: what fits exactly fits, what misses says by how much, and what was not measured is not guessed."""

from __future__ import annotations

import math

import pytest

from helpers.constraints import Failure, Limits, best_of_each, judge, table, usd_per_1000_chats
from helpers.errors import UserError

ROW = {
    "model": "smollm2-135m",
    "quant": "q8_0",
    "threads": 2,
    "file_mb": 144.1,
    "peak_ram_mb": 265.0,
    "prompt_tokens_per_s": 700.0,
    "tokens_per_s": 60.0,
    "first_token_s": 0.3,
    "load_cold_s": 0.4,
    "licence": "Apache-2.0",
    "measured": True,
}
UNMEASURED = {
    **ROW,
    "model": "llama-3.1-8b",
    "quant": "q4_k_m",
    "file_mb": 4920.7,
    "peak_ram_mb": 5600.0,
    "prompt_tokens_per_s": None,
    "tokens_per_s": None,
    "first_token_s": None,
    "load_cold_s": None,
    "licence": "Llama 3.1 Community",
    "measured": False,
}


def only(row, **limits):
    (verdict,) = judge([row], Limits(**limits))
    return verdict


def test_price_by_hand():
    # 0.3 s + 60 tokens / 60 a second = 1.3 s, on 2 vCPUs and, for 265 MB, 0.5 GiB:
    # 1.3 x (2 x 0.000024 + 0.5 x 0.0000025) = 0.000064025 and 0.0000004 for the request, a thousand times.
    assert usd_per_1000_chats(ROW) == pytest.approx(0.064425, abs=1e-12)
    assert usd_per_1000_chats(UNMEASURED) is None


@pytest.mark.parametrize(
    ("threads", "mb", "vcpus", "gib"),
    [
        (1, 536.870912, 1, 0.5),  # exactly half a GiB
        (1, 536.9, 1, 1),
        (3, 265.0, 4, 2),  # three are not sold, and four only with 2 GiB or more
        (8, 265.0, 8, 4),
        (1, 5600.0, 2, 8),  # more than 4 GiB only with two vCPUs
        (2, 16_100.0, 4, 16),
        (2, 18_000.0, 6, 24),
        (2, 26_000.0, 8, 32),
    ],
)
def test_price_is_that_of_a_container_on_sale(threads, mb, vcpus, gib):
    row = {**ROW, "threads": threads, "peak_ram_mb": mb, "first_token_s": 4.0}
    assert usd_per_1000_chats(row) == pytest.approx(1000 * 5 * (vcpus * 24e-6 + gib * 2.5e-6) + 4e-4, abs=1e-12)


@pytest.mark.parametrize("beyond", [{"threads": 9}, {"peak_ram_mb": 34_360.0}])
def test_no_container_no_price(beyond):
    verdict = only({**ROW, **beyond}, max_usd_per_1000_chats=100)
    assert verdict.unknown == ("max_usd_per_1000_chats",) and not verdict.fits


@pytest.mark.parametrize(
    ("row", "limit", "exact", "beyond"),
    [
        (ROW, "max_mb", 144.1, 144.0),
        (ROW, "ram_gb", 0.765, 0.7649),  # 0.5 GB are the operating system's
        ({**ROW, "peak_ram_mb": 100.0}, "ram_gb", 0.6, 0.599),  # 1000 * (0.6 - 0.5) is less than 100 in floats
        (ROW, "min_tokens_per_s", 60, 60.01),
        (ROW, "max_usd_per_1000_chats", 0.064425, 0.0644),
    ],
)
def test_exactly_at_the_limit_fits(row, limit, exact, beyond):
    assert only(row, **{limit: exact}).fits
    assert [failure.limit for failure in only(row, **{limit: beyond}).failed] == [limit]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_mb": 100}, "144 MB of at most 100 MB: 44 MB too large"),
        ({"max_mb": 144}, "144.1 MB of at most 144 MB: 0.1 MB too large"),
        ({"ram_gb": 0.7}, "265 MB of memory of at most 200 MB beside the system: 65 MB too much"),
        ({"min_tokens_per_s": 80.5}, "60.0 tokens/s of at least 80.5: 20.5 too slow"),
        ({"max_usd_per_1000_chats": 0.05}, "0.06 USD per 1,000 chats of at most 0.05: 0.01 too dear"),
        ({"max_mb": 100, "min_tokens_per_s": 80}, "144 MB of at most 100 MB: 44 MB too large"),  # the first of two
        ({}, "fits"),
    ],
)
def test_verdict_says_by_how_much(limits, text):
    assert str(only(ROW, **limits)) == text


def test_open_licence():
    assert only(UNMEASURED).fits and only(ROW, licence="open").fits
    verdict = only(UNMEASURED, licence="open")
    assert verdict.failed == (Failure("licence", "Llama 3.1 Community", "open"),)
    assert str(verdict) == "Llama 3.1 Community is not an open-source licence"


def test_what_was_not_measured_is_unknown_and_the_rest_still_judged():
    verdict = only(UNMEASURED, ram_gb=8, min_tokens_per_s=5, max_usd_per_1000_chats=1)
    assert verdict.failed == () and not verdict.fits
    assert verdict.unknown == ("min_tokens_per_s", "max_usd_per_1000_chats")
    assert str(verdict) == "not measured: tokens/s, price"
    assert only(UNMEASURED, ram_gb=8).fits
    assert str(only(UNMEASURED, max_mb=4000, min_tokens_per_s=5)).endswith("921 MB too large")


def test_order():
    def row(model, quant, mb, speed, licence="Apache-2.0"):
        return {**ROW, "model": model, "quant": quant, "file_mb": mb, "tokens_per_s": speed, "licence": licence}

    rows = [
        row("smollm2-135m", "f16", 270.2, 40.0),
        row("llama-3.2-1b", "q4_0", 300.0, 30.0, "Llama 3.2 Community"),
        row("smollm2-360m", "f16", 724.9, 12.0),  # 81 % too large; its speed misses by 67 %
        row("smollm2-360m", "q4_0", 228.4, 30.0),
        row("qwen2.5-0.5b", "q4_k_m", 395.3, 10.0),  # half as fast as asked: by 100 %
        row("qwen2.5-7b", "q4_0", 390.0, None),
        row("smollm2-360m", "q8_0", 385.7, 25.0),
    ]
    verdicts = judge(rows, Limits(max_mb=400, min_tokens_per_s=20, licence="open"))
    assert [(v.row["model"], v.row["quant"], v.fits) for v in verdicts] == [
        ("smollm2-360m", "q8_0", True),
        ("smollm2-360m", "q4_0", True),
        ("smollm2-135m", "f16", True),
        ("qwen2.5-7b", "q4_0", False),
        ("smollm2-360m", "f16", False),
        ("qwen2.5-0.5b", "q4_k_m", False),
        ("llama-3.2-1b", "q4_0", False),
    ]
    worst = [max((failure.overrun for failure in v.failed), default=0) for v in verdicts]
    assert worst == pytest.approx([0, 0, 0, 0, 0.81225, 1, math.inf])


@pytest.mark.parametrize("value", [-1, 0, math.nan, math.inf, "400", True])
@pytest.mark.parametrize("name", ["max_mb", "ram_gb", "min_tokens_per_s", "max_usd_per_1000_chats"])
def test_bad_limits(name, value):
    with pytest.raises(UserError) as caught:
        Limits(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: {value!r} is no usable limit. Give ")
    assert text.endswith(", or None for no limit.") and "\n" not in text


def test_bad_limits_of_memory_and_licence():
    with pytest.raises(UserError, match=r"^ram_gb: 0\.5 is no usable limit\. Give .* above the system's 0\.5"):
        Limits(ram_gb=0.5)
    with pytest.raises(UserError) as caught:
        Limits(licence="GPL")
    assert str(caught.value) == (
        "licence: 'GPL' is no kind of licence."
        ' Give "open" for Apache-2.0, MIT, BSD-3-Clause, or None for any licence.'
    )


def test_table():
    verdicts = judge([UNMEASURED, ROW], Limits(ram_gb=2, min_tokens_per_s=5))
    shown = table(verdicts)
    assert shown.rows == [
        ["smollm2-135m", "q8_0", "2", "144.1", "265", "60.0", "0.064", "fits"],
        ["llama-3.1-8b", "q4_k_m", "–", "4920.7", "5600", "–", "–"]
        + ["5600 MB of memory of at most 1500 MB beside the system: 4100 MB too much"],
    ]
    assert all(len(row) == len(shown.head) for row in shown.rows)


def test_the_best_of_each_model():
    sizes = {("smollm2-135m", "q4_0"): 91.0, ("smollm2-360m", "q8_0"): 386.0, ("smollm2-135m", "f16"): 270.0}
    rows = [ROW | {"model": model, "quant": quant, "file_mb": mb} for (model, quant), mb in sizes.items()]
    best = best_of_each(judge(rows, Limits(max_mb=200)))
    assert [(v.row["model"], v.row["quant"], v.fits) for v in best] == [
        ("smollm2-135m", "q4_0", True),
        ("smollm2-360m", "q8_0", False),
    ]


def test_a_wrong_licence_is_told_and_does_not_hide_the_nearest_file():
    llama = ROW | {"model": "llama-3.2-1b", "licence": "Llama 3.2 Community"}
    rows = [llama | {"quant": "f16", "file_mb": 2480.0}, llama | {"quant": "q4_k_m", "file_mb": 808.0}]
    (best,) = best_of_each(judge(rows, Limits(max_mb=900, licence="open")))
    assert best.row["quant"] == "q4_k_m" and str(best) == "Llama 3.2 Community is not an open-source licence"
