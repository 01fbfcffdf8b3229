"""A small client of the endpoint, for `cloister chat`, the demo and the screens. It uses no proxy."""

from __future__ import annotations

import json
import ssl
import time
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
    """An answer. `label` and `confidence` are there when a label model answered with a label.

    `id` names it in feedback. Of a streamed one `first` and `seconds` are how long the first text and the
    whole took, `cited` what its documents say where; `cached` that no model wrote it just now.
    """

    text: str = field(repr=False)
    finish: str
    label: str | None = field(default=None, repr=False)
    confidence: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    model: str = ""
    first: float | None = None
    seconds: float | None = None
    cached: bool = False
    cited: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def rate(self) -> float | None:
        """Tokens a second from the first text on; None where that says nothing."""
        count = self.usage.get("completion_tokens", 0)
        if self.cached or self.first is None or self.seconds is None or count < 2:
            return None
        return float(count - 1) / max(self.seconds - self.first, 1e-6)


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
    for part in talk(url, key, model, messages, ca=ca, **settings):
        if isinstance(part, str):
            yield part


def talk(
    url: str, key: str, model: str, messages: Messages, *, ca: Path | None = None, **settings: Any
) -> Iterator[str | Reply]:
    """The text of the answer as it comes, then the whole of it as a `Reply`; raises as `ask` does."""
    body = {
        **{"model": model, "messages": list(messages), "stream": True},
        **{"stream_options": {"include_usage": True}, **settings},
    }
    began = time.monotonic()
    pieces: list[str] = []
    told: dict[str, Any] = {}
    first: float | None = None
    for chunk in _chunks(url, key, body, ca):
        for choice in chunk["choices"]:
            if text := choice["delta"].get("content"):
                first = time.monotonic() - began if first is None else first
                pieces.append(text)
                yield text
            told |= {"finish": choice["finish_reason"]} if choice.get("finish_reason") else {}
        told |= {"usage": chunk["usage"]} if chunk.get("usage") else {}
        told |= {"model": chunk.get("model", ""), "extra": told.get("extra") or chunk.get("cloister") or {}}
    extra = told.get("extra") or {}
    yield Reply(
        text="".join(pieces),
        finish=told.get("finish", "stop"),
        label=extra.get("label"),
        confidence=extra.get("confidence"),
        usage=told.get("usage") or {},
        id=str(extra.get("answer_id", "")),
        model=str((extra.get("route") or {}).get("model") or told.get("model", "")),
        first=first,
        seconds=time.monotonic() - began,
        cached=bool(extra.get("cached")),
        cited=tuple(extra.get("citations") or ()),
    )


def say(url: str, key: str, said: dict[str, Any], *, ca: Path | None = None) -> str:
    """Give feedback on an answer of this key (see serve/feedback.py); the id of the feedback.

    Raises:
        ConfigWrong: the endpoint refuses it. EngineFailed: it does not answer.
    """
    with _client(url, key, ca, timeout=30.0) as client:
        try:
            answer = client.post("/v1/feedback", json=said)
        except httpx.TransportError as problem:
            raise _silent(url) from problem
    if answer.status_code != 200:
        raise _refusal(answer.status_code, answer.content)
    return str(answer.json().get("id", ""))


def _chunks(url: str, key: str, body: dict[str, Any], ca: Path | None) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer."""
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
                    yield found
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
