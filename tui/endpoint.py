"""A short-lived private endpoint: started on a free loopback port, asked, stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from appliance.core.errors import EngineFailed
from tui.session import Session, failure


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; label models also say how sure they are."""

    text: str
    confidence: float | None
    tokens: int
    seconds: float


class Endpoint:
    """A serve job with a key of its own, for as long as the `with` block lasts."""

    def __init__(self, session: Session, model: str, *, ungated: bool = False) -> None:
        self._session = session
        self._asked = model
        self._ungated = ungated

    def __enter__(self) -> Endpoint:
        self._key_id, secret = self._session.new_key("this terminal")
        spec = {
            "model": self._asked,
            "host": "127.0.0.1",
            "port": 0,
            "engine": "auto",
            "ungated": self._ungated,
        }
        self._job = self._session.start_serving(spec)
        ready = self._wait()
        self.url: str = ready["url"]
        self.model: str = ready["model"]
        self.engine: str = ready["engine"]
        self._client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {secret}"}, timeout=120, trust_env=False
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_client"):
            self._client.close()
        self._close()

    def ask(self, text: str, *, free: bool = False) -> Reply:
        """Ask one thing over HTTP.

        Raises:
            EngineFailed: the endpoint refused or did not answer.
        """
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": text}]}
        if free:
            body["response_format"] = {"type": "text"}
        began = time.monotonic()
        try:
            answer = self._client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as problem:
            raise EngineFailed(
                "The endpoint did not answer.", f"See `cloister job tail {self._job} --log`."
            ) from problem
        if answer.status_code != 200:
            told = answer.json().get("error", {}).get("message", f"HTTP {answer.status_code}")
            raise EngineFailed(f"The endpoint refused: {told}", "Shorten or change the question.")
        found = answer.json()
        extra = found.get("cloister") or found["choices"][0]["message"].get("cloister") or {}
        return Reply(
            text=found["choices"][0]["message"]["content"].strip(),
            confidence=extra.get("confidence"),
            tokens=found["usage"]["completion_tokens"],
            seconds=time.monotonic() - began,
        )

    def _wait(self) -> dict[str, Any]:
        while True:
            job = self._session.job(self._job)
            for event in job.events:
                if event["event"] == "ready":
                    return event
            if job.state not in ("running", "waiting"):
                self._session.revoke_key(self._key_id)
                raise failure(job)
            time.sleep(0.05)

    def _close(self) -> None:
        self._session.revoke_key(self._key_id)
        if self._session.job(self._job).state in ("running", "waiting"):
            self._session.stop_job(self._job)
