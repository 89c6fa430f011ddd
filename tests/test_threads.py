"""Waiting threads spin for a moment on a quiet machine, sleep on a busy one, and the user's own choice counts."""

from __future__ import annotations

import os

import psutil
import pytest

from helpers.threads import SPINS, suit_machine


@pytest.mark.parametrize(
    ("busy", "already", "after"),
    [
        (3.0, {}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPINS}),
        (60.0, {}, {"OMP_WAIT_POLICY": "passive"}),
        (3.0, {"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        (3.0, {"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
    ],
)
def test_the_machine_decides_unless_the_user_has(busy, already, after, monkeypatch):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in names} | already)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    suit_machine()
    assert {name: os.environ[name] for name in names if name in os.environ} == after
