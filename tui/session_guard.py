"""The door's lock: what each way through it is called in the table of rights, asked before anything else.

Every public function and method of tui.session* carries `acts` (or `anyone`); a test walks them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from appliance.core.errors import NotAllowed
from appliance.core.profile import check_site
from appliance.security.people import guard, orders
from tui.starting import before_long

if TYPE_CHECKING:
    from tui.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def acts(*actions: str, site: bool = False) -> Callable[[F], F]:
    """Let through whoever may do one of `actions`; the first argument is the session.

    Where there are several, the function itself, or what it calls, asks for the exact one. `site`: and
    only where the site profile is installed.
    """

    def wrap(function: F) -> F:
        @functools.wraps(function)
        def call(session: Any, *args: Any, **kwargs: Any) -> Any:
            allow(session, *actions)
            if site:
                check_site()
            return function(session, *args, **kwargs)

        call.actions = actions  # type: ignore[attr-defined]
        return cast("F", call)

    return wrap


def anyone(function: F) -> F:
    """Let everybody through, also who is not signed in: nothing of the site is told or changed by it."""
    function.actions = ()  # type: ignore[attr-defined]
    return function


def allow(session: Any, *actions: str) -> None:
    """Refuse who may do none of `actions`. Raises NotAllowed."""
    for action in actions[:-1]:
        if guard.why_not(session.home, session.actor, action) is None:
            return
    guard.allow(session.home, session.actor, actions[-1])


def agree(session: Session, action: str, target: str, content: Mapping[str, str]) -> None:
    """Refuse what two people have not agreed to, having asked them; one person's site needs nobody.

    Raises:
        NotAllowed: this role may not even ask. NeedsApproval: they have not agreed yet.
    """
    guard.require(session.home, session.actor, action, target, content=content)


def agree_job(session: Session, kind: str, spec: dict[str, Any]) -> None:
    """As `agree`, for all that a job of this kind with this spec is. Asks for everything at once.

    Raises:
        InstallationAltered: first of all, where what is installed is not what was recorded.
    """
    before_long(session.home, who=session.who)
    waiting: NotAllowed | None = None
    for action in orders.actions_of(kind, spec):
        try:
            agree(
                session,
                action,
                orders.target_of(spec),
                orders.content_of(kind, spec),
            )
        except NotAllowed as problem:
            waiting = waiting or problem
    if waiting is not None:
        raise waiting
