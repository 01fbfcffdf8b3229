"""Chat templates, rendered in a sandbox: the one place where a prompt is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from jinja2 import Template, TemplateError

from appliance.core.errors import DataRejected, ModelRejected
from appliance.models.template import Refusal, compile_template
from appliance.models.template_work import allowance

_FAILURES = (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, SyntaxError)
_LIMITS = (MemoryError, RecursionError)


@lru_cache(maxsize=16)
def check_template(template: str) -> Template:
    """The compiled template, when it is one that models/template.py allows.

    Raises:
        ModelRejected: it is no template, too large, or uses what is not allowed.
    """
    try:
        return compile_template(template)
    except (*_FAILURES, *_LIMITS) as problem:
        raise _unusable(str(problem)[:300] or type(problem).__name__) from problem


def _unusable(why: str) -> ModelRejected:
    return ModelRejected(
        f"The model's chat template cannot be used: {why}.",
        "Use a model whose template takes user and assistant turns.",
    )


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos_token: str,
    eos_token: str,
    pad_token: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The prompt text of `messages` (`role`, `content`) under a model's own chat template.

    `tools` are JSON schemas of functions. Without any, `tools` and `documents` are none, as transformers'
    apply_chat_template passes them; a template that loops over `tools` without asking whether there are
    any (Command R+, Hermes), which fails there, gets an empty list.

    Raises:
        ModelRejected: the template is not allowed, fails, refuses the messages, or does too much work.
    """
    compiled = check_template(template)
    given = {
        "messages": list(messages),
        "bos_token": bos_token,
        "eos_token": eos_token,
        "pad_token": pad_token,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        with allowance():
            try:
                return compiled.render(**given, tools=None if tools is None else list(tools))
            except TypeError:
                if tools is not None:
                    raise
                return compiled.render(**given, tools=[])
    except (*_FAILURES, *_LIMITS) as problem:
        raise _unusable(_words(problem, template)) from problem


def _words(problem: BaseException, template: str) -> str:
    """What went wrong with messages, without a word of them: what others' code says may quote them, and what
    the template says is shown only where it stands in the template as it is."""
    if isinstance(problem, Refusal):
        said = problem.words.plain
        return said if said and said in template else "it refuses the messages"
    return str(problem) if type(problem) is TemplateError else type(problem).__name__


def segments(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    bos_token: str,
    eos_token: str,
    pad_token: str = "",
    last_only: bool = False,
) -> list[str]:
    """`messages` as the template writes them, parted where turns of the assistant begin and end.

    Even places hold what the model reads, odd ones what it writes: its words and what ends the turn,
    without the white space behind it. Each beginning is the very prompt that serving would make there.
    With `last_only` only the last turn is parted from the rest. The last message is the assistant's.

    Raises:
        ModelRejected: the template cannot be used, or writes earlier turns otherwise once others follow.
    """
    parts: list[str] = []
    behind = ""
    write = partial(render, template, bos_token=bos_token, eos_token=eos_token, pad_token=pad_token)
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    for place in turns[-1:] if last_only else turns:
        opened = write(messages[:place])
        closed = write(messages[: place + 1], add_generation_prompt=False)
        if not (opened.startswith(behind) and closed.startswith(opened)):
            raise ModelRejected(
                "The model's chat template writes a conversation otherwise once it goes on, so its turns"
                " cannot be learnt.",
                "Use a base whose template leaves earlier turns as they were, or questions and answers.",
            )
        turn = closed[len(opened) :].rstrip()
        if not turn:
            raise ModelRejected(
                "The model's chat template leaves the assistant's words out.", "Use another base."
            )
        parts += [opened[len(behind) :], turn]
        behind = opened + turn
    return parts


def messages_from(text: str) -> list[dict[str, str]]:
    """The messages of a chat record's text: a JSON list of {"role", "content"}, the last by the user.

    Raises:
        DataRejected: it is something else.
    """
    try:
        value: Any = json.loads(text)
        messages = [{"role": str(each["role"]), "content": str(each["content"])} for each in value]
        if messages[-1]["role"] == "user":
            return messages
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise DataRejected(
        "The text of a chat record is no list of messages up to a user's.",
        "Import the conversations with --chat.",
    )
