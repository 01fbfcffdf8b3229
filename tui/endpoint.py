"""A short-lived private endpoint: started on a free loopback port, asked, stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from appliance.security.keys import OWN_LIFE, OWN_NAME, utc_now
from appliance.serve import client
from appliance.serve.client import Reply
from tui.endings import failure
from tui.session import Session

_FREE: dict[str, Any] = {"response_format": {"type": "text"}}


class Endpoint:
    """A serve job with a key of its own, for as long as the `with` block lasts."""

    def __init__(self, session: Session, model: str, *, ungated: bool = False) -> None:
        self._session = session
        self._asked = model
        self._ungated = ungated

    def __enter__(self) -> Endpoint:
        self._key_id, self._secret = self._session.new_key(OWN_NAME, expires=utc_now() + OWN_LIFE)
        try:
            spec = {"model": self._asked, "host": "127.0.0.1", "port": 0, "ungated": self._ungated}
            self._job = self._session.start_serving(spec)
            ready = self._wait()
        except BaseException:
            self._close()
            raise
        self.url: str = ready["url"]
        self.model: str = ready["model"]
        self.engine: str = ready["engine"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def ask(self, text: str, *, free: bool = False) -> Reply:
        """Ask one thing over HTTP; `free` asks a label model for free text.

        Raises:
            ConfigWrong: the endpoint refused. EngineFailed: it did not answer.
        """
        settings = _FREE if free else {}
        return client.ask(self.url, self._secret, self.model, [{"role": "user", "content": text}], **settings)

    def stream(self, text: str) -> Iterator[str]:
        """Ask for free text and yield it as it comes; raises as `ask` does."""
        messages = [{"role": "user", "content": text}]
        return client.stream(self.url, self._secret, self.model, messages, **_FREE)

    def _wait(self) -> dict[str, Any]:
        while True:
            job = self._session.job(self._job)
            for event in job.events:
                if event["event"] == "ready":
                    return event
            if job.state not in ("running", "waiting"):
                raise failure(job)
            time.sleep(0.05)

    def _close(self) -> None:
        self._session.revoke_key(self._key_id)
        if hasattr(self, "_job") and self._session.job(self._job).state in ("running", "waiting"):
            self._session.stop_job(self._job)
