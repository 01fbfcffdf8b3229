"""A job's order, signed: who asked for exactly this, and who set it going just now.

`order.json` beside a job's spec.json: {order: {v, site, job, kind, who, by, digest, at}, signature}. `who`
made the spec, `by` starts or resumes it and signs; `digest` is of kind, who and spec. The process that runs
the job checks it first, so that neither a changed spec nor a worker started by hand runs as somebody else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import NotAllowed
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.security.people import approvals, guard, persons, signing
from appliance.security.people.mode import SINGLE, mode
from appliance.security.people.roles import right
from appliance.security.people.rows import text
from appliance.security.people.signing import Signer

FRESH = timedelta(minutes=10)
"""How long after its signature a job may start."""

_ORDER, _FILE = "job order", "order.json"
_KINDS = {
    "import": "data.import",
    "train": "train.start",
    "search": "train.start",
    "evaluate": "evaluate.start",
    "audit-privacy": "privacy.audit",
    "quantize": "quantize.start",
    "serve": "serve.start",
    "docs": "docs.change",
    "simulate": "train.start",
    "federate": "federate.coordinate",
    "join": "federate.take-part",
}


def actions_of(kind: str, spec: dict[str, Any]) -> tuple[str, ...]:
    """The actions that a job of `kind` with this spec is.

    Raises:
        NotAllowed: no role has a right to such jobs.
    """
    if kind not in _KINDS:
        raise NotAllowed(f"No role may run jobs of the kind {kind[:40]}.", "Install the package again.")
    actions = [_KINDS[kind]]
    if kind in ("train", "search"):
        if kind == "search" and spec.get("public"):
            actions.append("data.public")
        if not (spec.get("settings") or {}).get("private", True):
            actions.append("train.open")
    if kind == "simulate" and spec.get("dataset"):
        actions.append("train.open")  # simulated sites have no ledger: nothing that they tell is charged
    if kind == "quantize" and spec.get("calibration"):
        actions.append("data.public")  # the text of that file goes into the released one
    return tuple(actions)


def target_of(spec: dict[str, Any]) -> str:
    """What a job that two people agree to is about."""
    return str(spec.get("dataset") or spec.get("model") or "")


def content_of(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    """Exactly what is to be done, as the approvers are shown it."""
    return {"job": kind, "spec": json.dumps(spec, sort_keys=True)}


def give(
    link: sqlite3.Connection,
    home: Home,
    *,
    job: str,
    kind: str,
    spec: dict[str, Any],
    who: str,
    by: str,
    signer: Signer | None,
    again: bool = False,
    now: datetime | None = None,
) -> dict[str, Any] | None:
    """The signed order of a job, its rights checked and its approvals used up; None where one person rules.

    `again`: it is resumed, so its approvals were used when it began.

    Raises:
        NotAllowed: `by` may not, or did not sign. NeedsApproval: two people have not agreed.
    """
    if mode(home) == SINGLE:
        return None
    if signer is None or signer.person != by:
        raise NotAllowed(f"{by[:40]} is not signed in here, so cannot start a job.", "Add --as NAME.")
    for action in actions_of(kind, spec):
        if again and right(action).two:
            continue
        guard.spend(
            link, home, by, action, target_of(spec), content=content_of(kind, spec), used_for=f"job {job}"
        )
    roster = persons.load(home, link)
    order = {
        "v": 1,
        "site": roster.site if roster else "",
        "job": job,
        "kind": kind,
        "who": who,
        "by": by,
        "digest": _hash({"kind": kind, "spec": spec, "who": who}),
        "at": text(now or persons.utc_now()),
    }
    return {"order": order, "signature": signing.sign(signer, _ORDER, order)}


def give_again(
    link: sqlite3.Connection,
    home: Home,
    folder: Path,
    *,
    by: str,
    signer: Signer | None,
    now: datetime | None = None,
) -> dict[str, Any] | None:
    """The order by which a job that ended early goes on: as `give`, of the spec that lies in its folder."""
    if mode(home) == SINGLE:
        return None
    try:
        held = json.loads(read_bytes(folder / "spec.json"))
        kind, spec, who = held["kind"], held["spec"], held["who"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _refused("its spec is damaged") from None
    check(home, folder, held, fresh=False)
    return give(
        link, home, job=folder.name, kind=kind, spec=spec, who=who, by=by, signer=signer, again=True, now=now
    )


def keep(folder: Path, signed: dict[str, Any] | None) -> None:
    """Write a signed order beside its job's spec."""
    if signed is not None:
        write_json(folder / _FILE, signed)


def check(
    home: Home, folder: Path, held: dict[str, Any], *, fresh: bool = True, now: datetime | None = None
) -> None:
    """Check that somebody of this site who may has ordered what `held` (spec.json of `folder`) says.

    Raises:
        NotAllowed: nobody did, or not just now.
    """
    if mode(home) == SINGLE:
        return
    try:
        signed = json.loads(read_bytes(folder / _FILE))
        order, signature = signed["order"], signed["signature"]
        at = datetime.fromisoformat(order["at"])
        same = (order["job"], order["kind"], order["who"]) == (folder.name, held["kind"], held["who"])
        same = same and order["digest"] == _hash({name: held[name] for name in ("kind", "spec", "who")})
    except (OSError, ValueError, KeyError, TypeError):
        raise _refused("it has no signed order") from None
    if not same:
        raise _refused("its spec is not what was signed")
    with reading(home) as link:
        roster = persons.load(home, link)
        one = roster.find(str(order["by"])) if roster else None
        if one is None or not signing.holds(one.public, _ORDER, order, str(signature)):
            raise _refused("nobody of this site signed it")
        row = link.execute("SELECT kind, who FROM jobs WHERE id = ?", (folder.name,)).fetchone()
        if row is None or (row["kind"], row["who"]) != (held["kind"], held["who"]):
            raise _refused("the database knows it otherwise")
        for action in actions_of(held["kind"], held["spec"]):
            guard.check(link, home, one.name, action)
            if right(action).two and not granted(link, home, action, folder.name, held):
                raise _refused(f"two people did not agree to {action}")
    if fresh and not timedelta(minutes=-1) < (now or persons.utc_now()) - at < FRESH:
        raise _refused("its order was signed too long ago")


def granted(
    link: sqlite3.Connection, home: Home, action: str, job: str, held: dict[str, Any] | None = None
) -> bool:
    """Whether two people agreed that `job`, as its spec is, does `action`; always where one person rules."""
    if mode(home) == SINGLE:
        return True
    try:
        held = held or json.loads(read_bytes(home.jobs / job / "spec.json"))
        target, content = target_of(held["spec"]), content_of(held["kind"], held["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return approvals.used_by(link, home, action, target, content, f"job {job}")


def _hash(value: Any) -> str:
    """Of JSON with floats in it, which Python spells in one way."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _refused(why: str) -> NotAllowed:
    return NotAllowed(f"This job does not run: {why}.", "Start or resume it with `cloister`, signed in.")
