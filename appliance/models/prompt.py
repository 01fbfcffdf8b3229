"""Chat templates, rendered in a sandbox: the one place where a prompt is made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.core.errors import ModelRejected

_FAILURES = (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, SyntaxError)
_sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)


def _raise(message: str) -> None:
    raise TemplateError(message)


_sandbox.globals["raise_exception"] = _raise
_sandbox.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
_compiled = lru_cache(maxsize=16)(_sandbox.from_string)


def render(
    template: str,
    messages: Sequence[dict[str, str]],
    *,
    bos_token: str,
    eos_token: str,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt text of `messages` (`role`, `content`) under a model's own chat template.

    Raises:
        ModelRejected: the template fails, reaches outside its sandbox, or refuses the messages.
    """
    try:
        return _compiled(template).render(
            messages=list(messages),
            bos_token=bos_token,
            eos_token=eos_token,
            add_generation_prompt=add_generation_prompt,
        )
    except (*_FAILURES, MemoryError, RecursionError) as problem:
        raise ModelRejected(
            f"The model's chat template cannot be used: {str(problem) or type(problem).__name__}.",
            "Use a model whose template takes user and assistant turns.",
        ) from problem
