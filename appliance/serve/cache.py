"""Answers given before, given again to the same key for the same question. In memory only.

Prompts and answers are patient text, so nothing of them goes to disk, and what is kept is bounded in
bytes and age. The key of an entry is SHA-256 over canonical JSON of everything that makes an answer:
who asks (the id of the API key), the model's name and the SHA-256 of its file, the request, the version
of the documents. So nothing crosses API keys, and a changed model or document finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from appliance.serve.answers import Part
from appliance.serve.engine import Piece
from appliance.serve.labels import Labelled
from appliance.serve.requests import Ask

if TYPE_CHECKING:
    from appliance.serve.near import Question

MOST_BYTES = 64 << 20
MOST_SECONDS = 3600.0
_OVERHEAD = 1024  # bytes of Python objects around one entry, rounded up
# How an answer is sent, and under which name it was asked for, changes nothing in its text.
_NOT_THE_ANSWER = {"stream", "usage", "user", "model", "settings", "messages"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A finished answer, at which an engine worked for `seconds`.

    `extra` is what else goes with it, as JSON (citations).
    """

    text: str = field(repr=False)
    finish: str
    prompt_tokens: int
    completion_tokens: int
    label: Labelled | None = None
    extra: str = field(default="", repr=False)
    seconds: float = 0.0

    def parts(self) -> list[Part]:
        """What the engine's parts said, in one part: for a stream or a whole body alike."""
        piece = Piece(
            text=self.text,
            finish=self.finish,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )
        return [Part(piece=piece, label=self.label)]

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        label = self.label.label if self.label else ""
        return sum(len(text.encode()) for text in (self.text, self.extra, label)) + _OVERHEAD


def whole(parts: Sequence[Part], extra: str = "") -> Answer | None:
    """The answer that `parts` are; None unless they reach its end."""
    if not parts or not parts[-1].piece.finish:
        return None
    last = parts[-1]
    return Answer(
        text="".join(part.piece.text for part in parts),
        finish=last.piece.finish or "",
        prompt_tokens=last.piece.prompt_tokens,
        completion_tokens=last.piece.completion_tokens,
        label=last.label,
        extra=extra,
        seconds=last.piece.seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the cache knows a request by. `question` is there where a near match may be looked for."""

    key: str
    model: str
    question: Question | None = None


def asked(
    ask: Ask, *, scope: str, model: str, sha256: str, documents: str = "", near: bool = False
) -> Asked | None:
    """The identity of a request; None where its answer is drawn by chance.

    `scope` is the id of the API key, `sha256` that of the model's file, `documents` names the version of
    every collection that may be read. A field that Ask gets later is part of the key by itself.
    """
    if ask.settings.temperature > 0 and ask.settings.seed is None:
        return None
    settings = asdict(ask.settings)
    if ask.settings.temperature == 0:  # the likeliest token, whatever the rest says
        settings |= {"top_p": 1.0, "seed": None}
    rest = {field.name: getattr(ask, field.name) for field in fields(ask)}
    rest = {name: value for name, value in rest.items() if name not in _NOT_THE_ANSWER}
    messages = [_trimmed(message) for message in ask.messages]
    frame = [scope, model, sha256, documents, settings, rest]
    question = None
    last = messages[-1] if messages else {}
    text = last.get("content")
    if near and last.get("role") == "user" and isinstance(text, str):
        before = [*messages[:-1], {**last, "content": None}]
        from appliance.serve.near import Question

        question = Question(frame=_digest([*frame, before]), text=text)
    return Asked(key=_digest([*frame, messages]), model=model, question=question)


def _trimmed(message: dict[str, Any]) -> dict[str, Any]:
    return {
        name: unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value
        for name, value in message.items()
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An answer from the cache; `near`: it was given to the same question in other words."""

    answer: Answer
    near: bool


@dataclass(frozen=True, kw_only=True)
class _Entry:
    answer: Answer
    asked: Asked
    at: float


class Cache:
    """Least recently used answers go first. One thread (the event loop) may use it.

    With `near`, a question that was asked in other words may find an answer (near.py): off unless the
    site wants it.
    """

    def __init__(
        self,
        *,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        near: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._ages: OrderedDict[str, None] = OrderedDict()  # oldest first
        self._near = None
        if near:
            from appliance.serve.near import NearIndex  # numpy, 11 MB

            self._near = NearIndex()
        self._most_bytes, self._most_seconds, self._clock = most_bytes, most_seconds, clock
        self._bytes = self._hits = self._near_hits = self._misses = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._seconds = 0.0

    @property
    def near(self) -> bool:
        """Whether near matches are looked for: what `asked` wants to know."""
        return self._near is not None

    def get(self, asked: Asked) -> Hit | None:
        """The answer to this request, or with `near` to one that means the same; counts hit or miss."""
        entry = self._live(asked.key)
        near = None
        if entry is None and self._near is not None and asked.question is not None:
            near = self._near.find(asked.question)
            entry = self._live(near) if near else None
        if entry is None:
            self._misses += 1
            return None
        self._entries.move_to_end(entry.asked.key)
        self._hits += 1
        self._near_hits += near is not None
        self._prompt_tokens += entry.answer.prompt_tokens
        self._completion_tokens += entry.answer.completion_tokens
        self._seconds += entry.answer.seconds
        return Hit(answer=entry.answer, near=near is not None)

    def put(self, asked: Asked, answer: Answer) -> None:
        """Keep an answer; one too large to keep is not."""
        self._remove(asked.key)
        if _room(asked, answer) > self._most_bytes:
            return
        self._entries[asked.key] = _Entry(answer=answer, asked=asked, at=self._clock())
        self._ages[asked.key] = None
        self._bytes += _room(asked, answer)
        if self._near is not None and asked.question is not None:
            self._near.add(asked.question, asked.key)
        self.sweep()
        while self._bytes > self._most_bytes:
            self._remove(next(iter(self._entries)))

    def sweep(self) -> None:
        """Forget what is too old, so that no prompt stays in memory for longer. Cheap: call it often."""
        while self._ages and self._old(self._entries[next(iter(self._ages))]):
            self._remove(next(iter(self._ages)))

    def drop(self, model: str | None = None) -> int:
        """Forget all answers of a model, or all there are; returns how many."""
        gone = [key for key, entry in self._entries.items() if model in (None, entry.asked.model)]
        for key in gone:
            self._remove(key)
        return len(gone)

    def facts(self) -> dict[str, Any]:
        """Numbers to show: entries, bytes, hits, near_hits, misses, hit_rate, tokens and seconds saved."""
        looked = self._hits + self._misses
        return {
            "entries": len(self._entries),
            "bytes": self._bytes,
            "hits": self._hits,
            "near_hits": self._near_hits,
            "misses": self._misses,
            "hit_rate": self._hits / looked if looked else None,
            "prompt_tokens_saved": self._prompt_tokens,
            "tokens_saved": self._completion_tokens,
            "seconds_saved": round(self._seconds, 3),
        }

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and self._old(entry):
            self._remove(key)
            return None
        return entry

    def _old(self, entry: _Entry) -> bool:
        return self._clock() - entry.at > self._most_seconds

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        del self._ages[key]
        self._bytes -= _room(entry.asked, entry.answer)
        if self._near is not None and entry.asked.question is not None:
            self._near.remove(entry.asked.question, key)


def _room(asked: Asked, answer: Answer) -> int:
    """Bytes of an entry; a near match also keeps the question and its vector."""
    return answer.size + (asked.question.size if asked.question else 0)
