"""Changes of a site's own policy.toml: pause, resume, veto. A round that is being answered ends first."""

from __future__ import annotations

from typing import Any

import tomli_w
from pydantic import ValidationError

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.files import write_bytes
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security import audit
from appliance.security.people import guard
from federated import standing
from federated.faults import faults
from federated.place import Place
from federated.policy import Policy, policy_of


def made(values: dict[str, Any]) -> Policy:
    """A policy of these fields.

    Raises:
        ConfigWrong: one is wrong; the message names it.
    """
    try:
        return Policy.model_validate(values)
    except ValidationError as problem:
        raise ConfigWrong(
            f"No policy can say this: {faults(problem)}.",
            "Give another value: cloister federate join --help",
        ) from None


def kept(place: Place) -> Policy:
    """The policy of a site.

    Raises:
        ConfigWrong: a field is wrong.
    """
    return policy_of(read_bytes(place.policy))


def keep(place: Place, policy: Policy) -> None:
    """Write it."""
    write_bytes(place.policy, tomli_w.dumps(policy.model_dump(mode="python", exclude_none=True)).encode())


def pause(home: Home, name: str, *, paused: bool, who: str) -> Policy:
    """Answer no round any more, or answer again.

    Raises:
        NotFound, ConfigWrong: this home is no site of it.
    """
    return _changed(home, name, who, "federate.pause" if paused else "federate.resume", paused=paused)


def veto(home: Home, name: str, *, round_: int | None, undo: bool, who: str) -> Policy:
    """Refuse one round, or without a number the model: every round from now on.

    Raises:
        NotFound, ConfigWrong: this home is no site of it, or that is no round.
    """
    if round_ is None:
        return _changed(home, name, who, "federate.veto", model_vetoed=not undo)
    if not 1 <= round_ <= standing.agreed(standing.at(home, name, "site")).rounds.count:
        raise ConfigWrong(f"{name} has no round {round_}.", f"See: cloister federate status {name}")
    before = set(kept(standing.at(home, name, "site")).vetoed)
    rounds = sorted(before - {round_} if undo else before | {round_})
    return _changed(home, name, who, "federate.veto", vetoed=rounds)


def _changed(home: Home, name: str, who: str, what: str, **fields: Any) -> Policy:
    place = standing.at(home, name, "site")
    with transaction(home) as link:
        guard.spend(link, home, who, "federate.veto", name)
        policy = kept(place).model_copy(update=fields)
        keep(place, policy)
        audit.record(
            link, who=who, what=what, target=name, **{key: str(value) for key, value in fields.items()}
        )
    return policy
