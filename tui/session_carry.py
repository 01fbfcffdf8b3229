"""The part of the door (session.py) for federated rounds that go by stick, as bundles."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import Busy, NotFound, TrustRefused
from tui.session_guard import acts

if TYPE_CHECKING:
    from appliance.core.home import Home
    from appliance.security.trust.identity import Receiver
    from federated.place import Place
    from tui.session import Session

_PATIENCE = 5.0  # seconds: the rounds notice a site that is carried, and ask it


@acts("federate.carry", site=True)
def export_round(session: Session, name: str, *, site: str | None, out: Path) -> dict[str, Any]:
    """Write what waits to be carried: at the coordinator for `site`, at a site for its coordinator.

    The first export for a site says that its rounds are carried from now on.

    Raises:
        NotFound: nothing waits, there is no such site, or its card is not here. Busy: the rounds do not run.
        ConfigWrong: the rounds go by secure aggregation.
    """
    from appliance.security.bundle import releasing, show
    from federated import carrying, standing, stick

    home = session.home
    place = standing.at(home, name, "coordinator", "site")
    federation = standing.agreed(place)
    carrying.check_carried(federation)
    if standing.side(place) == "coordinator":
        if site not in {one.name for one in federation.active()}:
            raise NotFound(
                f"{name} has no site {site or ''} that is in.", "Name one with --to; see: federate status"
            )
        other = next(one.key for one in federation.sites if one.name == site)
        stick.carry(place.stick, str(site))
        whom = str(site)
        limit = time.monotonic() + _PATIENCE
        while (frame := stick.waiting(place.stick, whom)) is None and time.monotonic() < limit:
            _running(home, place, name)
            time.sleep(0.2)
    else:
        site, other, whom = standing.noted(place).site, federation.coordinator_key, stick.COORDINATOR
        frame = stick.waiting(place.stick, whom)
    if frame is None:
        _running(home, place, name)
        raise NotFound(
            f"Nothing waits to be carried to {whom}.",
            "At the coordinator, a round begins once enough sites are there: cloister federate status. At a"
            " site, bring a round in first: cloister federate import-round FILE",
        )
    request = carrying.leaving(federation, str(site), frame, _receiver(home, other, whom))
    written = releasing.export(home, request, out, identity=standing.own_keys(home), who=session.who)
    return {
        "federation": name,
        "site": site,
        "to": whom,
        "round": int(frame.head["ref" if frame.what == "ask" else "round"]),
        "reason": str(frame.head.get("reason", "")),
        "path": str(written.path),
        "size": written.size,
        "expires": show.date_text(written.manifest.expires),
    }


@acts("federate.carry", site=True)
def import_round(session: Session, path: Path) -> dict[str, Any]:
    """Bring a carried round in for the job of its federation: a request at a site, or a site's answer.

    Raises:
        BundleRefused: with the exact reason. TrustRefused: it is not from whom it must be, or of no
            federation of this home.
    """
    from appliance.security.bundle import importing
    from federated import carrying, place, standing, stick

    home, own = session.home, standing.own_keys(session.home)
    brought = importing.import_bundle(home, path, identity=own, kinds={carrying.KIND}, who=session.who)
    refusal: TrustRefused | None = None
    for name in place.names(home):
        where = place.place_of(home, name)
        if standing.side(where) not in ("coordinator", "site"):
            continue
        try:
            found = carrying.arrived(brought.opened, brought.folder, standing.agreed(where), own.key)
        except TrustRefused as problem:
            refusal = problem
            continue
        at_hub = standing.side(where) == "coordinator"
        stick.put(where.stick, "in", found.site if at_hub else stick.COORDINATOR, found.frame)
        importing.entered(home, brought.opened.digest, f"round {found.round} of {name}", who=session.who)
        with suppress(OSError):
            (brought.folder / carrying.BODY).unlink()  # the frame has it
        return {
            "federation": name,
            "site": found.site,
            "round": found.round,
            "side": "coordinator" if at_hub else "site",
            "runs": _runs(home, where),
        }
    raise refusal or TrustRefused("This home is in no federation.", "See: cloister federate list")


def _receiver(home: Home, key: str, name: str) -> Receiver:
    from appliance.security.trust import store

    signer, known = store.trust(home).signers.get(key), store.receivers(home)
    if signer is None or signer.name not in known:
        raise NotFound(
            f"The card of {name} is not here, and a bundle is sealed for its keys.",
            "There: cloister trust card --to FILE. Here: cloister trust add FILE",
        )
    return known[signer.name]


def _runs(home: Home, place: Place) -> bool:
    from federated.status import newest_job

    job = newest_job(home, place)
    return job is not None and job.state in ("running", "waiting")


def _running(home: Home, place: Place, name: str) -> None:
    if not _runs(home, place):
        raise Busy(
            f"{name} does not run here, so nothing is made that could be carried.",
            f"Start it: cloister federate start {name} --detach (a site without a link: --carried)",
        )
