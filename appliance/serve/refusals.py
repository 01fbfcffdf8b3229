"""The one error of requests: told to the client in OpenAI's shape. Never repeats what was sent."""

from __future__ import annotations

from typing import Any

TOO_LONG = "context_length_exceeded"  # OpenAI's code for a prompt that the model cannot take


class Refused(Exception):
    """A request that is answered with an error; `retry_after` are seconds to wait, where waiting helps."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
