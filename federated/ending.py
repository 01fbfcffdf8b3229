"""The end of a federation: its last version is signed, sites are told, the keys of the links are destroyed.

The job of the coordinator ends it after the last round; `end` does so earlier. Sites that are there hear it
over the link (farewell.py), all others by a notice: canonical JSON with the last agreement and its
signature, which is public and which a site believes as it believes any later version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit, canonical
from appliance.security.people import guard
from federated import checkpoint, farewell, standing
from federated.description import Federation
from federated.place import Place, held

LONGEST = 3 << 20
KEYS = ("authority.key", "x25519.key", "link/pki/server.key", "link/pki/site.key", "link/pki/node")
_SECRETS = ("state", "vector")  # below seat/secure: those of secure rounds


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A federation that has ended after so many rounds; `before` says that it had ended already."""

    federation: Federation
    rounds: int
    before: bool


def end(home: Home, name: str, *, who: str, unfinished: bool = False) -> Ended:
    """End a federation at its coordinator, for all its sites and for good; its keys stay until `retire`.

    Raises:
        NotFound: there is none. ConfigWrong: this home does not coordinate it, or rounds are left that
            nobody said are not wanted.
    """
    place = standing.at(home, name, "coordinator")
    own = standing.own_keys(home)
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.coordinate", name)
        federation = standing.agreed(place)
        done = rounds_done(place, federation)
        if federation.ended:
            return Ended(federation=federation, rounds=done, before=True)
        if done < federation.rounds.count and not unfinished:
            raise ConfigWrong(
                f"{done} of {federation.rounds.count} rounds of {name} are done.",
                f"Let it finish, or end it as it is: cloister federate end {name} --unfinished",
            )
        after = standing.next_version(federation, ended=True)
        standing.put(place, *standing.signed(after, own))
        audit.record(link, who=who, what="federate.end", target=name, version=after.version, rounds=done)
    return Ended(federation=after, rounds=done, before=False)


def rounds_done(place: Place, federation: Federation) -> int:
    """How many rounds a coordinator has committed."""
    last = checkpoint.committed(place.path, federation.coordinator_key)
    return last.round if last else 0


def retire(home: Home, place: Place, *, who: str) -> list[str]:
    """Destroy the keys that this home has in a federation for nothing else; which they were.

    What is left shows what was done: agreement, rounds, answers, certificates.
    """
    gone = [name for name in KEYS if (place.path / name).exists()]
    for name in gone:
        (place.path / name).unlink()
    for name in _SECRETS:
        (place.seat / "secure" / name).unlink(missing_ok=True)
    if gone:
        with transaction(home) as link:
            audit.record(link, who=who, what="federate.retire", target=place.path.name, keys=", ".join(gone))
    return gone


def notice(place: Place) -> bytes:
    """What tells a site of the end that the link did not reach.

    Raises:
        ConfigWrong: the federation has not ended.
    """
    if not standing.agreed(place).ended:
        raise ConfigWrong(
            f"{place.path.name} has not ended.", f"End it: cloister federate end {place.path.name}"
        )
    agreement, signature = read_bytes(place.agreement), read_bytes(place.signature)
    said = {"v": 1, "agreement": agreement.decode(), "signature": signature.hex()}
    return canonical.encode(said) + b"\n"


def heard(home: Home, name: str, content: bytes, *, who: str) -> Federation:
    """At a site: believe a notice; its keys stay until `retire`.

    Raises:
        NotFound, ConfigWrong: this home is no site of it. TrustRefused: it is no notice of the end, or not
            signed by the coordinator.
    """
    place = standing.at(home, name, "site")
    agreement, signature = _parted(content)
    known = standing.agreed(place)
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.veto", name)
        found = farewell.believed(place.seat, agreement, signature)
        if not known.ended:
            record_heard(link, name, found, who=who)
    return found


def record_heard(link: Any, name: str, found: Federation, *, who: str) -> None:
    """The audit entry of a site that has heard of the end."""
    audit.record(link, who=who, what="federate.ended", target=name, version=found.version)


def closed(home: Home, name: str, *, who: str) -> tuple[bytes, bytes]:
    """File and signature of the last version, which is made now if it is not there."""
    place = held(home, name)
    if not standing.agreed(place).ended:
        end(home, name, who=who)
    return read_bytes(place.agreement), read_bytes(place.signature)


def _parted(content: bytes) -> tuple[bytes, bytes]:
    try:
        if len(content) > LONGEST:
            raise ValueError("too long")
        said: Mapping[str, Any] = canonical.decode(content.removesuffix(b"\n"))
        if set(said) != {"v", "agreement", "signature"} or said["v"] != 1:
            raise ValueError("other fields")
        return said["agreement"].encode(), bytes.fromhex(said["signature"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise TrustRefused(
            "This is no notice of the end of a federation.",
            "Have the coordinator write it: cloister federate end NAME --to FILE",
        ) from problem
