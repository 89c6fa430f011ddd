"""Helpers of the personal-LLM series: from one YAML profile to a small chat model that knows that person."""

__version__ = "0.1.0"
