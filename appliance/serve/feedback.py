"""What people say of answers: a thumb, a correction, marks from 1 to 5; reviewed before any of it is learnt.

An answer stays in the endpoint's memory for a while, so that feedback can name it by id alone. Question
and answer reach the disk only when feedback is given, as `home.feedback/ID.json` (0600); the database
and the audit log hold no word of them. The id stands for exactly these words: saying it anew makes a
new id and ends the old one, so what a reviewer accepts is what the reviewer has read.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.events import now
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.serve.messages import clean
from appliance.serve.refusals import Refused

RATINGS = ("correct", "complete", "clear")
CORRECTION_CAP = 20_000  # characters
WAITING_CAP, WAITING_BYTES = 1000, 16 << 20  # of one key, until somebody has reviewed it
LONGEST_ANSWER, _SHARES = 1 << 16, 8  # bytes of one answer with its question; keys that fit beside each other
_SHOWN = 50  # labels, in a refusal
_KNOWN = {"answer_id", "thumb", "correction", "ratings"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """Feedback as given: at least one of thumb (1 or -1), correction and ratings (1 to 5) is there."""

    answer: str
    thumb: int | None
    correction: str | None = field(repr=False)
    ratings: dict[str, int]


class Answers:
    """The latest answers of one endpoint, in memory only: `most_bytes` in all, `most_seconds` each."""

    def __init__(
        self,
        *,
        most_bytes: int = 4 << 20,
        most_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_bytes, self._most_seconds, self._clock = most_bytes, most_seconds, clock
        self._kept: OrderedDict[str, tuple[float, str, bytes]] = OrderedDict()
        self._owned: dict[str, OrderedDict[str, int]] = {}  # bytes of each answer of a key, oldest first
        self._sizes: Counter[str] = Counter()  # of all answers of a key
        self._size = 0
        self._lock = threading.Lock()  # answers are kept in the event loop, feedback comes in threads

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        return self._size

    def keep(
        self,
        answer_id: str,
        key_id: str,
        *,
        model: str,
        messages: Sequence[Mapping[str, str]],
        text: str,
        passages: Sequence[Mapping[str, Any]] = (),
        label: bool = False,
    ) -> None:
        """Remember an answer to `messages` (as they were sent); `label` says that it is one of few labels."""
        words = {
            "model": model,
            "messages": [{"role": each["role"], "content": each["content"]} for each in messages],
            "text": text,
            "label": label,
            "passages": [dict(each) for each in passages],
        }
        content = json.dumps(words, ensure_ascii=False).encode()
        with self._lock:
            self._drop(answer_id)
            if len(content) <= min(LONGEST_ANSWER, self._most_bytes):
                self._kept[answer_id] = (self._clock(), key_id, content)
                self._owned.setdefault(key_id, OrderedDict())[answer_id] = len(content)
                self._sizes[key_id] += len(content)
                self._size += len(content)
            # A key that fills more than its share loses its own oldest, not those of others.
            own = self._owned.get(key_id, OrderedDict())
            while len(own) > 1 and self._sizes[key_id] > self._most_bytes // _SHARES:
                self._drop(next(iter(own)))
            while self._size > self._most_bytes:
                self._drop(next(iter(self._kept)))
            self._forget_old()

    def find(self, answer_id: str, key_id: str) -> dict[str, Any] | None:
        """What was kept of the answer, if this very key asked for it and it is not too old."""
        with self._lock:
            self._forget_old()
            _, owner, content = self._kept.get(answer_id, (0.0, "", b""))
        return json.loads(content) if content and owner == key_id else None

    def _forget_old(self) -> None:
        limit = self._clock() - self._most_seconds
        while self._kept and next(iter(self._kept.values()))[0] < limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, answer_id: str) -> None:
        if answer_id in self._kept:
            _, owner, content = self._kept.pop(answer_id)
            self._size -= len(content)
            self._sizes[owner] -= self._owned[owner].pop(answer_id)
            if not self._owned[owner]:
                del self._owned[owner], self._sizes[owner]


def read_said(body: Any) -> Said:
    """The body of POST /v1/feedback, checked.

    Raises:
        Refused: not understood, or it says nothing.
    """
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    values = {name: value for name, value in body.items() if value is not None}
    if values.keys() - _KNOWN:
        raise Refused(f"Feedback may only hold {', '.join(sorted(_KNOWN))}.")
    answer = values.get("answer_id")
    if not isinstance(answer, str) or not 0 < len(answer) <= 100 or not answer.isascii():
        raise Refused("answer_id must be the id that came with the answer.", param="answer_id")
    thumb = values.get("thumb")
    if thumb is not None and (type(thumb) is not int or thumb not in (1, -1)):
        raise Refused("thumb must be 1 or -1.", param="thumb")
    said = Said(
        answer=answer,
        thumb=thumb,
        correction=_correction(values.get("correction", "")),
        ratings=_ratings(values.get("ratings", {})),
    )
    if said.thumb is None and said.correction is None and not said.ratings:
        raise Refused("Feedback needs a thumb, a correction or a rating.")
    return said


def give(
    home: Home,
    answers: Answers,
    key_id: str,
    body: Any,
    labels: Callable[[str], Sequence[str]] = lambda model: (),
) -> str:
    """Keep what the holder of `key_id` says of one of their answers; the id of the feedback.

    `labels` gives what a label model can answer, if that is known: a correction must be one of them.
    Said again of the same answer it takes the place of what was said before, to be reviewed anew; the very
    same said again changes nothing, and the audit log has no line of it. The
    words of an answer that has left the memory are then those kept with the feedback before. What waits
    for review may be WAITING_CAP pieces and WAITING_BYTES for each key, so that none fills the disk. Waits
    for the disk: call it in a thread.

    Raises:
        Refused: bad input; or, with status 404, no such answer, too old, or another key's; or, with status
            429, too much of the key's feedback waits for review.
        NoRoom, Busy: the site's disk or database cannot take it now.
    """
    said = read_said(body)
    feedback_id = secrets.token_hex(5)
    path = words_path(home, feedback_id)
    try:
        with transaction(home) as link:
            rows = link.execute(
                "SELECT id, thumb, ratings FROM feedback WHERE answer = ? AND key = ?", (said.answer, key_id)
            ).fetchall()
            earlier = [words_path(home, row["id"]) for row in rows]
            words = answers.find(said.answer, key_id) or _kept_before(earlier)
            if words is None:
                raise Refused(
                    "There is no such answer of yours here, or it is too old. Ask again.",
                    status=404,
                    param="answer_id",
                    code="answer_not_found",
                )
            if words["label"] and said.correction is not None:
                _check_label(said.correction, labels(words["model"]))
            kept = json.dumps(words | {"correction": said.correction}, ensure_ascii=False).encode()
            ratings = json.dumps(said.ratings, sort_keys=True)
            for row, file in zip(rows, earlier, strict=True):
                same = (row["thumb"], row["ratings"]) == (said.thumb, ratings)
                if same and file.exists() and read_bytes(file) == kept:
                    return str(row["id"])
            _check_room(home, link, key_id, said.answer, len(kept))
            write_private(path, kept)
            link.execute("DELETE FROM feedback WHERE answer = ? AND key = ?", (said.answer, key_id))
            link.execute(
                "INSERT INTO feedback (id, created, key, model, answer, thumb, ratings, corrected)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    feedback_id,
                    now(),
                    key_id,
                    words["model"],
                    said.answer,
                    said.thumb,
                    ratings,
                    int(said.correction is not None),
                ),
            )
            who = f"key {key_id}"
            audit.record(link, who=who, what="feedback.give", target=feedback_id, model=words["model"])
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    for old in earlier:
        old.unlink(missing_ok=True)
    return feedback_id


def sweep(home: Home) -> int:
    """Remove files of feedback that no row names, which a power cut can leave; how many there were."""
    with transaction(home) as link:  # shuts out a `give` that has written its file and not yet its row
        known = {f"{row['id']}.json" for row in link.execute("SELECT id FROM feedback")}
        lost = [file for file in home.feedback.iterdir() if file.name not in known]
        for file in lost:
            file.unlink(missing_ok=True)
    return len(lost)


def words_path(home: Home, feedback_id: str) -> Path:
    """The file of one feedback's words."""
    return home.feedback / f"{feedback_id}.json"


def _check_room(home: Home, link: sqlite3.Connection, key_id: str, answer: str, size: int) -> None:
    """That `size` bytes more of this key may wait; what was said of this `answer` before goes away."""
    rows = link.execute(
        "SELECT id FROM feedback WHERE key = ? AND state = 'new' AND answer != ?", (key_id, answer)
    ).fetchall()
    for row in rows:
        with suppress(FileNotFoundError):
            size += words_path(home, row["id"]).stat().st_size
    if len(rows) >= WAITING_CAP or size > WAITING_BYTES:
        raise Refused(
            f"As much feedback of this API key waits for review as may: {WAITING_CAP:,} answers or"
            f" {WAITING_BYTES >> 20} MiB. There is room again when some of it has been reviewed.",
            status=429,
            kind="rate_limit_error",
            code="feedback_full",
        )


def _kept_before(earlier: Sequence[Path]) -> dict[str, Any] | None:
    for path in earlier:
        if path.exists():
            words: dict[str, Any] = json.loads(read_bytes(path))
            return words
    return None


def _check_label(correction: str, labels: Sequence[str]) -> None:
    known = [label.strip() for label in labels]
    if known and correction not in known:
        shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise Refused(f"A correction must be one of this model's labels: {shown}.", param="correction")


def _correction(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) > CORRECTION_CAP:
        raise Refused(
            f"correction must be text of at most {CORRECTION_CAP:,} characters.", param="correction"
        )
    return clean(value, "correction").strip() or None


def _ratings(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not value.keys() <= set(RATINGS):
        raise Refused(f"ratings may hold {', '.join(RATINGS)}.", param="ratings")
    if not all(type(mark) is int and 1 <= mark <= 5 for mark in value.values()):
        raise Refused("Each rating must be a whole number from 1 to 5.", param="ratings")
    return dict(value)
