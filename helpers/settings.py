"""Settings from the environment or from a `.env` file in the working folder."""

from __future__ import annotations

import os


def setting(name: str, default: str | None = None) -> str | None:
    """Value of `name`: the environment wins over `.env`, which wins over `default`. Empty counts as not set."""
    from dotenv import dotenv_values

    return os.environ.get(name) or dotenv_values(".env").get(name) or default
