"""Renders a conversation with the chat template that a GGUF file carries, as transformers would."""

from __future__ import annotations

import json
from datetime import datetime


def _environment():
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the trained part for transformers; its content is rendered as it is."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    # The template comes with a downloaded file: it is untrusted code, hence the sandbox.
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
    return env


def render_template(template: str, messages: list[dict], **special_tokens: str) -> str:
    """The prompt text for `messages`, open for the assistant's answer.

    `special_tokens` are names such as bos_token. Raises ValueError when the template refuses the messages.
    """
    from jinja2.exceptions import TemplateError

    try:
        return (
            _environment()
            .from_string(template)
            .render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **special_tokens)
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses this conversation: {error}") from error
