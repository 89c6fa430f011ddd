"""Broken input of every kind, made in code; `tests/test_broken.py` feeds it to the real command line."""
