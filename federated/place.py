"""Where a federation lies in a home: federations/NAME, at its coordinator and at each site.

    agreement.toml, agreement.sig   the newest signed version
    policy.toml                     a site's own rules
    rounds/                         the coordinator's rounds (checkpoint.py)
    seat/                           a site's answers (seat.py)
    stick/                          rounds that are carried by hand (stick.py)
    kits/, authority.key            the coordinator's: what it gave out, and the key it gave it out with
    site.json, request.json, x25519.key    a site's: what it asked for, and its key of secure aggregation
    link/                           what the processes with the network may read: certificates, node key, logs
    link/pki/                       ca.crt, and server.pem/.key (coordinator) or site.pem/.key, node (site)

The link's folder holds no record, no adapter and no signing key: its processes have no key of the vault, so
it alone stays plain in a sealed home (core/vaulted.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder of one federation."""

    path: Path

    @property
    def agreement(self) -> Path:
        """The newest signed description."""
        return self.path / "agreement.toml"

    @property
    def signature(self) -> Path:
        """Its signature, 64 bytes."""
        return self.path / "agreement.sig"

    @property
    def policy(self) -> Path:
        """A site's own rules."""
        return self.path / "policy.toml"

    @property
    def authority_key(self) -> Path:
        """The key of the federation's authority; only at the coordinator."""
        return self.path / "authority.key"

    @property
    def seat(self) -> Path:
        """A site's answers."""
        return self.path / "seat"

    @property
    def stick(self) -> Path:
        """What is carried by hand (stick.py)."""
        return self.path / "stick"

    @property
    def link(self) -> Path:
        """What the processes with the network may read."""
        return self.path / "link"

    @property
    def pki(self) -> Path:
        """Certificates and the keys that belong to them."""
        return self.link / "pki"


def place_of(home: Home, name: str) -> Place:
    """The place of a federation, whether it is there or not.

    Raises:
        ConfigWrong: that is no name of one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigWrong(f"{name[:64]} cannot name a federation.", "Use letters, digits and hyphens.")
    return Place(path=home.path / "federations" / name)


def held(home: Home, name: str) -> Place:
    """The place of a federation that is there.

    Raises:
        NotFound: it is not.
    """
    place = place_of(home, name)
    if not place.path.is_dir():
        raise NotFound(f"There is no federation called {name} here.", "See: cloister federate list")
    return place


def names(home: Home) -> list[str]:
    """The federations of a home."""
    folder = home.path / "federations"
    return sorted(one.name for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
