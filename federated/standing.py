"""What this home is in a federation, and the newest signed agreement there.

agreement.next    both files of the next version, until both are written: a crash leaves no half of it
site.json         at a site: {v, site, dataset, base, left}
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.files import write_bytes, write_json, write_private
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security.trust.identity import Identity, identity_of
from federated import description
from federated.description import Federation
from federated.place import Place, held, place_of

Side = Literal["coordinator", "site", "asked", "left"]


@dataclass(frozen=True, kw_only=True)
class Own:
    """What a site noted of itself: its name there, its dataset and base, when it left."""

    site: str
    dataset: str
    base: str = ""
    left: str = ""


def own_keys(home: Home) -> Identity:
    """This home's identity, which signs for it.

    Raises:
        ConfigWrong: it has none. Locked: it is sealed and locked.
    """
    if not home.identity.exists():
        raise ConfigWrong(
            "This site has no keys of its own yet.", "Make them: cloister trust init NAME --role site"
        )
    return identity_of(read_bytes(home.identity))


def side(place: Place) -> Side:
    """What this home is: "asked" has made a request and not joined."""
    if (place.pki / "server.pem").exists():
        return "coordinator"
    if noted(place).left:
        return "left"
    return "site" if place.agreement.exists() else "asked"


def at(home: Home, name: str, *sides: Side) -> Place:
    """The place of a federation in which this home is one of `sides`.

    Raises:
        NotFound: there is none of that name. ConfigWrong: this home is something else in it.
    """
    place = held(home, name)
    found = side(place)
    if found in sides:
        return place
    said = {
        "coordinator": ("This home coordinates {}.", "Do this at a site."),
        "site": ("This home is a site of {}.", "Do this at its coordinator."),
        "asked": ("This home has not joined {}.", "Join it with its kit: cloister federate join KIT"),
        "left": ("This home has left {}.", "Ask anew: cloister federate request --help"),
    }[found]
    raise ConfigWrong(said[0].format(name), said[1])


def noted(place: Place) -> Own:
    """What a site noted of itself."""
    path = place.path / "site.json"
    if not path.exists():
        return Own(site="", dataset="")
    content = json.loads(read_bytes(path))
    return Own(**{name: str(content.get(name, "")) for name in ("site", "dataset", "base", "left")})


def note(place: Place, own: Own) -> None:
    """Keep it."""
    write_json(place.path / "site.json", {"v": 1, **asdict(own)})


def agreed(place: Place) -> Federation:
    """The newest agreement that this home has.

    Raises:
        NotFound: it has none yet. ConfigWrong: it is damaged.
    """
    finish(place)
    if not place.agreement.exists():
        raise NotFound(
            "This home has no agreement of that federation yet.", "Join it: cloister federate join KIT"
        )
    later = place.seat / "agreement.toml"  # a site's: what it accepted with a round
    return description.parsed(read_bytes(later if later.exists() else place.agreement))


def signed(federation: Federation, own: Identity) -> tuple[bytes, bytes]:
    """(file, signature) of a version."""
    content = description.written(federation)
    return content, own.sign(description.PURPOSE + content)


def put(place: Place, content: bytes, signature: bytes) -> None:
    """Make a version the newest, for the rounds and for the gateway."""
    place.link.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(place):
        write_json(_next(place), {"file": content.decode(), "signature": signature.hex()})
        _write(place)


def finish(place: Place) -> None:
    """Write what `put` was about to write when it was killed."""
    if _next(place).exists():
        with _alone(place):
            if _next(place).exists():
                _write(place)


def _next(place: Place) -> Path:
    return place.path / "agreement.next"


def _write(place: Place) -> None:
    waiting = json.loads(read_bytes(_next(place)))
    content, signature = waiting["file"].encode(), bytes.fromhex(waiting["signature"])
    write_bytes(place.signature, signature)
    write_bytes(place.agreement, content)
    write_private(place.link / "agreement.toml", content)
    _next(place).unlink()


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """One writer of the agreement at a time: who only looks finishes it too."""
    handle = os.open(place.path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def next_version(federation: Federation, **changed: object) -> Federation:
    """The version after `federation`.

    Raises:
        ConfigWrong: it is no agreement any more.
    """
    made = federation.model_copy(update={"version": federation.version + 1, **changed})
    return description.parsed(description.written(made))


def free(home: Home, name: str) -> Place:
    """The place for a new federation of that name.

    Raises:
        ConfigWrong: there is one, or that is no name of one.
    """
    place = place_of(home, name)
    if place.path.exists():
        raise ConfigWrong(
            f"There is a federation called {name} here already.", "Choose another name, or see: federate list"
        )
    return place
