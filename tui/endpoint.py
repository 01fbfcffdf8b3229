"""Ways to ask models: a running endpoint, or a short-lived private one on a free loopback port."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from appliance.core.errors import NotFound
from appliance.security.keys import OWN_LIFE, OWN_NAME, utc_now
from appliance.serve import client
from appliance.serve.client import Reply
from tui.endings import failure
from tui.session import Session

_FREE: dict[str, Any] = {"response_format": {"type": "text"}}


@dataclass(frozen=True, kw_only=True)
class Line:
    """An address with a key of this terminal's own, and the models behind it, the first one by default."""

    url: str
    secret: str = field(repr=False)
    models: tuple[str, ...]
    ca: Path | None = None

    def talk(
        self, text: str, *, model: str = "", free: bool = False, **settings: Any
    ) -> Iterator[str | Reply]:
        """The answer as it comes, then the whole of it; `free` asks a label model for free text.

        Raises:
            ConfigWrong: the endpoint refused. EngineFailed: it did not answer.
        """
        messages = [{"role": "user", "content": text}]
        settings = (_FREE if free else {}) | settings
        return client.talk(self.url, self.secret, model or self.models[0], messages, ca=self.ca, **settings)

    def say(self, answer: str, said: dict[str, Any]) -> str:
        """Give feedback on an answer of this line's; raises as `talk` does."""
        return client.say(self.url, self.secret, {"answer_id": answer, **said}, ca=self.ca)


@contextmanager
def line_to(session: Session, job: str) -> Iterator[Line]:
    """A line to the running endpoint of a job; its key is revoked at the end.

    Raises:
        NotFound: it is not ready.
    """
    ready = _ready(session, job)
    if ready is None:
        raise NotFound(f"Job {job} answers nothing yet.", "Wait until it is up, then ask again.")
    key_id, secret = session.new_key(OWN_NAME, expires=utc_now() + OWN_LIFE)
    try:
        ca = ready.get("ca")
        names = (*ready.get("routes", ()), *ready["models"])
        yield Line(url=ready["url"], secret=secret, models=names, ca=Path(ca) if ca else None)
    finally:
        session.revoke_key(key_id)


@contextmanager
def private_line(session: Session, models: Sequence[str]) -> Iterator[Line]:
    """A line to an endpoint of its own with these models; both end with it.

    Raises:
        ApplianceError: it does not come up.
    """
    with Endpoint(session, models, ungated=True) as endpoint:
        yield endpoint.line


class Endpoint:
    """A serve job of its own with a key of its own, for as long as the `with` block lasts."""

    def __init__(self, session: Session, model: str | Sequence[str], *, ungated: bool = False) -> None:
        self._session = session
        self._asked = [model] if isinstance(model, str) else list(model)
        self._ungated = ungated

    def __enter__(self) -> Endpoint:
        self._key_id, self._secret = self._session.new_key(OWN_NAME, expires=utc_now() + OWN_LIFE)
        try:
            spec = {"models": self._asked, "host": "127.0.0.1", "port": 0, "ungated": self._ungated}
            self._job = self._session.start_serving(spec)
            ready = self._wait()
        except BaseException:
            self._close()
            raise
        self.url: str = ready["url"]
        self.model: str = ready["model"]
        self.engine: str = ready["engine"]
        self.line = Line(url=self.url, secret=self._secret, models=tuple(ready["models"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def ask(self, text: str, *, model: str = "", free: bool = False) -> Reply:
        """Ask one thing of the first model, or the one named; `free` asks a label model for free text.

        Raises:
            ConfigWrong: the endpoint refused. EngineFailed: it did not answer.
        """
        settings = _FREE if free else {}
        messages = [{"role": "user", "content": text}]
        return client.ask(self.url, self._secret, model or self.model, messages, **settings)

    def stream(self, text: str) -> Iterator[str]:
        """Ask for free text and yield it as it comes; raises as `ask` does."""
        messages = [{"role": "user", "content": text}]
        return client.stream(self.url, self._secret, self.model, messages, **_FREE)

    def _wait(self) -> dict[str, Any]:
        while True:
            if (ready := _ready(self._session, self._job)) is not None:
                return ready
            job = self._session.job(self._job)
            if job.state not in ("running", "waiting"):
                raise failure(job)
            time.sleep(0.05)

    def _close(self) -> None:
        self._session.revoke_key(self._key_id)
        if hasattr(self, "_job") and self._session.job(self._job).state in ("running", "waiting"):
            self._session.stop_job(self._job)


def _ready(session: Session, job: str) -> dict[str, Any] | None:
    """The newest event that says the endpoint of a job is up."""
    events = reversed(session.job(job).events)
    return next((event for event in events if event["event"] == "ready"), None)
