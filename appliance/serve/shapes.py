"""Answers in OpenAI's JSON shapes. What we say beyond them stands under `cloister`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.serve.answers import Part


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One answer's envelope; `chat` tells /v1/chat/completions from /v1/completions."""

    model: str
    chat: bool
    usage: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        text, last = "".join(part.piece.text for part in parts), parts[-1]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if last.calls:
            message |= {"content": text or None, "tool_calls": _calls(last)}
        choice = {
            "index": 0,
            **({"message": message} if self.chat else {"text": text}),
            "logprobs": None,
            "finish_reason": last.piece.finish,
        }
        kind = "chat.completion" if self.chat else "text_completion"
        return self._envelope(kind, [choice], last) | {"usage": _usage(last)}

    def opening(self) -> bytes:
        """The first event of a chat stream, which names the role; nothing for a text stream."""
        return self._event(delta={"role": "assistant", "content": ""}) if self.chat else b""

    def part(self, part: Part) -> bytes:
        """The events of one part; the last part also gives the counts, if wanted, and the end."""
        text, finish = part.piece.text, part.piece.finish
        found = b""
        if text:
            found += self._event(delta={"content": text}, text=text)
        if part.calls:
            calls = [{"index": place, **call} for place, call in enumerate(_calls(part))]
            found += self._event(delta={"tool_calls": calls})
        if finish:
            found += self._event(finish=finish, last=part)
            if self.usage:
                kind = "chat.completion.chunk" if self.chat else "text_completion"
                found += event(self._envelope(kind, [], None) | {"usage": _usage(part)})
            found += b"data: [DONE]\n\n"
        return found

    def _event(
        self,
        *,
        delta: dict[str, Any] | None = None,
        text: str = "",
        finish: str | None = None,
        last: Part | None = None,
    ) -> bytes:
        content = {"delta": delta or {}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = self._envelope(kind, [choice], last)
        return event(body | {"usage": None} if self.usage else body)

    def _envelope(self, kind: str, choices: list[Any], last: Part | None) -> dict[str, Any]:
        body = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        said = {} if last is None else dict(last.extra)
        if last is not None and last.label is not None:
            said |= {"label": last.label.label, "confidence": round(last.label.confidence, 6)}
        return body | {"cloister": said} if said else body


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def _calls(part: Part) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in part.calls
    ]


def _usage(last: Part) -> dict[str, Any]:
    prompt, completion = last.piece.prompt_tokens, last.piece.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": last.piece.cached_tokens},
    }
