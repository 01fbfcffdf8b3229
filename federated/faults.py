"""What is wrong with a value that somebody wrote, in words for them."""

from __future__ import annotations

from pydantic import ValidationError

_MOST = 5


def faults(problem: ValidationError, below: int = 0) -> str:
    """Each field that is wrong, and why; `below` leaves out so many steps of the way to it."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'][below:])) or 'all'}: {one['msg'].removeprefix('Value error, ')}"
        for one in problem.errors()[:_MOST]
    )
