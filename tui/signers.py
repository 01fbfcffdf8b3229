"""Who signs for a command: the person signed in at this terminal, or one whose passphrase is given now."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from appliance.core.errors import NotAllowed
from appliance.core.home import Home
from appliance.core.sealing import Locked, sealed_home
from appliance.security.people import mode


@dataclass(frozen=True, kw_only=True)
class AgentSigner:
    """Signs in the key agent of an unlocked site; the key does not come here."""

    person: str
    home: Home

    def sign(self, payload: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `payload`.

        Raises:
            Locked: the site has locked meanwhile. NotAllowed: somebody else has signed in here.
        """
        from appliance.security.vault import unlocking

        name, signature = unlocking.sign(self.home, payload)
        if name != self.person:
            raise NotAllowed(f"{name} is signed in here now, not {self.person}.", "Run the command again.")
        return signature


def signed_in(home: Home) -> AgentSigner | None:
    """Who is signed in at this terminal, if the site has people and is unlocked."""
    if mode.mode(home) == mode.SINGLE or not sealed_home(home.path):
        return None
    from appliance.security.vault import unlocking

    with suppress(Locked):
        if name := unlocking.who(home):
            return AgentSigner(person=name, home=home)
    return None
