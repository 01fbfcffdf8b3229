"""When the screens close by themselves: nobody was there for IDLE_MINUTES, or the site was locked.

Their end is what wipes: keys of the vault, the key that a person signs with, plain copies, words on screen.
A home that is neither sealed nor has people has nothing to wipe, so its screens stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from appliance.core.sealing import sealed_home
from appliance.security.people import guard, mode
from appliance.security.people.persons import IDLE_MINUTES
from tui.session import Session

LOOK = 5.0
"""Seconds from one look to the next."""

_AGAIN = "Jobs go on. Open the screens again with `cloister`."


class Idle:
    """Since when nobody has pressed a key in the screens of `session`; `clock` is in seconds."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self._session, self._home, self._clock = session, session.home, clock
        self._sealed = sealed_home(self._home.path)
        self._guarded = self._sealed or mode.mode(self._home) == mode.PEOPLE
        self._held = False
        self.touch()

    def touch(self) -> None:
        """Somebody is there."""
        self._since = self._clock()

    def over(self) -> str:
        """Why the screens must close; "" while they need not."""
        if self._guarded and self._clock() - self._since >= IDLE_MINUTES * 60:
            self._forget()
            return f"The screens were closed: no key was pressed for {IDLE_MINUTES} minutes. {_AGAIN}"
        if self._sealed and self._locked():
            self._forget()
            return f"The screens were closed: the site was locked. {_AGAIN}"
        return ""

    def _forget(self) -> None:
        self._session.actor = guard.identify(self._home, self._session.who)  # without the key to sign with
        if self._sealed:
            from appliance.security.vault import mounted  # loads cryptography: only where there is a vault

            mounted.forget(self._home.path)

    def _locked(self) -> bool:
        """Whether keys that this process had are gone: a lock ends them within half a minute."""
        from appliance.security.vault import mounted

        had, self._held = self._held, mounted.holds(self._home.path)
        return had and not self._held
