"""What two people must agree to: what was asked is told in a window, not as an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from appliance.core.errors import NeedsApproval
from tui.screens.frame import Framed
from tui.screens.modals import Words

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Nothing was done yet: two people are asked, in these words."""

    text: str


def or_waits(work: Callable[[], T]) -> T | Waits:
    """What `work` gives, or what two people were asked instead.

    Raises:
        ApplianceError: as `work`, but for NeedsApproval.
    """
    try:
        return work()
    except NeedsApproval as problem:
        return Waits(text=waiting_text(problem))


def waiting_text(problem: NeedsApproval) -> str:
    """Who must agree, where they do, and what to do then."""
    return (
        f"{problem.message}\n\n{problem.hint}"
        "\n\nOn the screens they sign under 9 Audit, key r. Then do this again: nothing was done yet."
    )


class Agreeing(Framed):
    """A screen with things to do that need two people."""

    def attempt_by_two(self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """As `attempt`, for what two people must agree to."""

        def told(found: Any) -> None:
            if isinstance(found, Waits):
                self.app.push_screen(Words("Two people must agree", found.text))
            else:
                then(found)

        self.attempt(lambda: or_waits(work), told)
