"""A small client of the endpoint, for `cloister chat` and the demo. It uses no proxy."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from appliance.core.errors import ApplianceError, ConfigWrong, EngineFailed
from appliance.serve.refusals import TOO_LONG

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. `label` and `confidence` are there when a label model answered with a label."""

    text: str = field(repr=False)
    finish: str
    label: str | None = field(default=None, repr=False)
    confidence: float | None = None
    usage: dict[str, int] = field(default_factory=dict)


def ask(
    url: str, key: str, model: str, messages: Messages, *, ca: Path | None = None, **settings: Any
) -> Reply:
    """The answer to `messages`. `settings` are OpenAI's parameters (max_tokens, temperature, ...).

    Raises:
        ConfigWrong: the endpoint refuses the key or the request. EngineFailed: it does not answer.
    """
    body = {"model": model, "messages": list(messages), **settings}
    with _client(url, key, ca) as client:
        try:
            answer = client.post("/v1/chat/completions", json=body)
        except httpx.TransportError as problem:
            raise _silent(url) from problem
    if answer.status_code != 200:
        raise _refusal(answer.status_code, answer.content)
    found = answer.json()
    choice, extra = found["choices"][0], found.get("cloister") or {}
    return Reply(
        text=choice["message"]["content"],
        finish=choice["finish_reason"],
        label=extra.get("label"),
        confidence=extra.get("confidence"),
        usage=found["usage"],
    )


def stream(
    url: str, key: str, model: str, messages: Messages, *, ca: Path | None = None, **settings: Any
) -> Iterator[str]:
    """The text of the answer as it comes; see `ask`."""
    body = {"model": model, "messages": list(messages), "stream": True, **settings}
    with _client(url, key, ca) as client:
        try:
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise _refusal(answer.status_code, answer.read())
                for line in answer.iter_lines():
                    content = line.removeprefix("data: ")
                    if not line.startswith("data: ") or content == "[DONE]":
                        continue
                    found = json.loads(content)
                    if "error" in found:
                        raise _refusal(503, content.encode())
                    for choice in found["choices"]:
                        if text := choice["delta"].get("content"):
                            yield text
        except httpx.TransportError as problem:
            raise _silent(url) from problem


def _client(url: str, key: str, ca: Path | None, timeout: float | None = None) -> httpx.Client:
    secure = url.startswith("https")
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(timeout, connect=5.0),
        verify=ssl.create_default_context(cafile=ca) if secure else False,
        trust_env=False,
    )


def _refusal(status: int, body: bytes) -> ApplianceError:
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"The endpoint answered with status {status}.", None
    if status >= 500:
        return EngineFailed(message, "See the log of the serving job.")
    if status == 401:
        return ConfigWrong(message, "Check the key.")
    if status == 429:
        return ConfigWrong(message, "Try again in a moment.")
    return ConfigWrong(message, "Say it in fewer words." if code == TOO_LONG else "Ask in another way.")


def _silent(url: str) -> EngineFailed:
    return EngineFailed(f"Nothing answers at {url}.", "Is the serving job running? See `cloister job list`.")
