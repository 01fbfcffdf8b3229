"""The part of the door (session.py) for federations: enrolment, rounds, a site's own no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import Busy, ConfigWrong, NotFound, TrustRefused
from appliance.core.files import write_bytes
from appliance.ops import jobs
from tui.session_guard import acts, agree, agree_job

if TYPE_CHECKING:
    from federated.preflight import Check
    from tui.session import Session

LONGEST = 2 << 20


@acts("federate.coordinate", site=True)
def init(
    session: Session, draft: dict[str, Any], *, authority_to: Path | None, passphrase: str
) -> dict[str, Any]:
    """Make a federation; `draft` has the fields of federated/setup.py Draft. Loads the base once.

    Raises:
        ConfigWrong: a setting is wrong or the name is taken. NotFound, ModelRejected: the base.
    """
    from appliance.security.trust.words import words_of
    from federated import setup

    made = setup.init(
        session.home,
        setup.Draft(**draft),
        who=session.who,
        keep_at=authority_to,
        passphrase=passphrase,
    )
    return {
        "name": made.name,
        "gateway": made.gateway,
        "base": made.model.base,
        "rounds": made.rounds.count,
        "secure": made.rounds.secure,
        "expires": made.expires.isoformat(),
        "words": words_of(made.coordinator_key),
        "authority": str(authority_to) if authority_to else "in this home",
    }


@acts("site.read", site=True)
def task_of(session: Session, dataset: str) -> dict[str, Any]:
    """Task, unit and delta of a dataset here, for the agreement of a federation.

    Raises:
        NotFound: there is none. PrivacyRefused: it does not say whose privacy is protected.
    """
    from appliance.data import store
    from appliance.privacy import ledger

    found = store.get(session.home, dataset)
    return {
        "task": {"kind": found.task, "prompt": found.prompt, "labels": list(found.labels)},
        "unit": store.unit_of(found),
        "delta": ledger.delta_for(found.units["train"]),
    }


@acts("federate.take-part", site=True)
def request(
    session: Session, name: str, *, site: str | None, dataset: str, units: int | None, again: bool, to: Path
) -> dict[str, Any]:
    """Make this site's keys and its request, written to the file `to`."""
    from federated import enrol, papers, standing
    from federated.setup import site_name

    content = enrol.request(
        session.home,
        name,
        site=site or site_name(standing.own_keys(session.home).name),
        dataset=dataset,
        units=units,
        again=again,
        who=session.who,
    )
    write_bytes(to, content)
    said = papers.read_request(content)
    return {
        "federation": said.federation,
        "site": said.site,
        "units": said.units,
        "words": papers.request_words(content),
        "path": str(to),
    }


@acts("federate.enrol", site=True)
def approve(
    session: Session,
    path: Path,
    *,
    words: str,
    to: Path,
    authority: Path | None,
    passphrase: Callable[[], str],
) -> dict[str, Any]:
    """Take a site in whose request's words were read out; its kit is written to `to`.

    Raises:
        TrustRefused: altered, or other words. NeedsApproval: two people have not agreed yet.
        ConfigWrong, NotFound: see federated/approve.py.
    """
    from appliance.security.trust.words import words_of
    from federated import approve as approving
    from federated import papers, standing

    content = _content(path)
    said = papers.read_request(content)
    papers.check_words(words, content, said.site)
    place = standing.at(session.home, said.federation, "coordinator")
    if (done := approving.before(place, said, content)) is None:
        approving.fits(standing.agreed(place), said)
        agree(session, "federate.enrol", said.site, approving.content_of(said, content))
        done = approving.approve(
            session.home, content, words=words, who=session.who, file=authority, asked=passphrase
        )
    write_bytes(to, done.kit)
    federation = standing.agreed(place)
    return {
        "federation": federation.name,
        "site": done.site,
        "seat": done.seat,
        "version": done.version,
        "kit": str(to),
        "sites": len(federation.active()),
        "quorum": federation.rounds.quorum,
        "words": words_of(federation.coordinator_key),
    }


@acts("federate.drop", site=True)
def drop(session: Session, name: str, site: str, *, state: str) -> dict[str, Any]:
    """End a site's part for good: "dropped", "revoked" (its keys are lost) or "left"."""
    from federated import approve as approving

    if state not in ("left", "dropped", "revoked"):
        raise ConfigWrong(f"{state[:20]} is no way out.", "Choose left, dropped or revoked.")
    made = approving.drop(session.home, name, site, state=state, who=session.who)  # type: ignore[arg-type]
    return {"federation": name, "site": site, "state": state, "version": made.version}


@acts("federate.take-part", site=True)
def join(session: Session, path: Path, *, words: str, base: str, policy: dict[str, Any]) -> dict[str, Any]:
    """Take the seat of a kit, after a preflight; `joined` is False where a check stopped it.

    Raises:
        TrustRefused: altered, other keys, or a coordinator whose words nobody compared.
        ConfigWrong: this home has joined already, or a rule is wrong.
    """
    from federated import enrol, preflight

    seated = enrol.seating(session.home, _content(path), base=base, settings=policy)
    enrol.check_coordinator(session.home, seated.opened, words)
    enrol.put_certificates(seated)
    found = preflight.of_site(
        session.home, seated.place, seated.opened.federation, seated.policy, seated.base
    )
    stopped = [one for one in found if not one.good and one.stops == "join"]
    if not stopped:
        enrol.join(session.home, seated, who=session.who)
    return {
        "federation": seated.opened.federation.name,
        "site": seated.opened.kit.site,
        "seat": seated.opened.kit.seat,
        "joined": not stopped,
        "policy": seated.policy.model_dump(mode="json"),
        "checks": [asdict(one) for one in found],
    }


@acts("site.read", site=True)
def listed(session: Session) -> list[dict[str, Any]]:
    """Every federation of this home."""
    from federated import status as telling

    return telling.listed(session.home)


@acts("site.read", site=True)
def status(session: Session, name: str) -> dict[str, Any]:
    """How a federation goes, as far as it is known here: see federated/status.py."""
    from federated import status as telling

    return telling.status(session.home, name)


@acts("site.read", site=True)
def check(session: Session, name: str, *, port: int | None = None) -> list[dict[str, Any]]:
    """The preflight of this home in a federation: see federated/preflight.py Check.

    Raises:
        NotFound: there is none. ConfigWrong: this home has not joined it.
    """
    return [asdict(one) for one in _checks(session, name, port)]


@acts("federate.coordinate", "federate.take-part", site=True)
def start(
    session: Session, name: str, *, host: str, port: int | None, model: str | None, carried: bool = False
) -> str:
    """Start this home's job in a federation, after its preflight: rounds, or answers to them.

    A `carried` site has no link: its rounds come and go in bundles (session_carry.py).

    Raises:
        Busy: it runs already. ConfigWrong: a check stops it, by name; or secure rounds would be carried.
    """
    from federated import carrying, preflight, rules, standing
    from federated.setup import gateway_of
    from federated.status import newest_job, title

    place = standing.at(session.home, name, "coordinator", "site")
    if (running := newest_job(session.home, place)) and running.state in ("running", "waiting"):
        raise Busy(
            f"{name} runs already here, as job {running.id}.", f"See it: cloister federate status {name}"
        )
    federation, side = standing.agreed(place), standing.side(place)
    if carried:
        carrying.check_carried(federation)
    preflight.refuse(_checks(session, name, port, linked=not carried), "start")
    spec: dict[str, Any] = {"federation": name}
    if side == "coordinator":
        kind = "federate"
        spec |= {"host": host, "port": port or gateway_of(federation.gateway)[1], "name": model}
    else:
        kind, own, policy = "join", standing.noted(place), rules.kept(place)
        spec |= {"dataset": policy.dataset, "base": own.base or federation.model.base}
        spec |= {"gateway": federation.gateway, "fab": federation.code.fab}
        spec |= {"carried": carried}
    agree_job(session, kind, spec)
    return jobs.start(
        session.home, kind, spec, title=title(name, side), who=session.who, signer=session.actor.signer
    )


@acts("federate.veto", site=True)
def pause(session: Session, name: str, *, paused: bool) -> dict[str, Any]:
    """Answer no round any more, or answer again."""
    from federated import rules

    policy = rules.pause(session.home, name, paused=paused, who=session.who)
    return {"federation": name, "paused": policy.paused}


@acts("federate.veto", site=True)
def veto(session: Session, name: str, *, round_: int | None, undo: bool) -> dict[str, Any]:
    """Refuse one round, or, without a number, every one from now on."""
    from federated import rules

    policy = rules.veto(session.home, name, round_=round_, undo=undo, who=session.who)
    return {"federation": name, "rounds": policy.vetoed, "model": policy.model_vetoed}


@acts("federate.veto", site=True)
def leave(session: Session, name: str) -> dict[str, Any]:
    """Give this site's seat up for good; its job there is stopped."""
    from federated import enrol
    from federated.place import held
    from federated.status import newest_job

    running = newest_job(session.home, held(session.home, name))
    enrol.leave(session.home, name, who=session.who)
    if running is not None and running.state in ("running", "waiting"):
        jobs.stop(session.home, running.id, who=session.who)
    return {"federation": name, "left": True}


@acts("federate.coordinate", site=True)
def end(session: Session, name: str, *, unfinished: bool, to: Path | None) -> dict[str, Any]:
    """End a federation for all its sites; `to` is where the notice is written for those that are not told.

    A running job tells the sites that are there and destroys the keys; without one that is done now.

    Raises:
        ConfigWrong: this home does not coordinate it, or rounds are left and `unfinished` is not set.
    """
    from federated import ending
    from federated.place import held
    from federated.status import newest_job

    done = ending.end(session.home, name, who=session.who, unfinished=unfinished)
    place = held(session.home, name)
    job = newest_job(session.home, place)
    running = job is not None and job.state in ("running", "waiting")
    gone = [] if running else ending.retire(session.home, place, who=session.who)
    if to is not None:
        write_bytes(to, ending.notice(place))
    return {
        "federation": name,
        "version": done.federation.version,
        "rounds": done.rounds,
        "of": done.federation.rounds.count,
        "before": done.before,
        "job": job.id if job is not None and running else None,
        "sites": [site.name for site in done.federation.active()],
        "retired": gone,
        "notice": str(to) if to else None,
    }


@acts("federate.veto", site=True)
def ended(session: Session, name: str, path: Path) -> dict[str, Any]:
    """At a site: believe the notice of a federation's end; its job is stopped and the keys are destroyed.

    Raises:
        TrustRefused: it is no notice that the coordinator signed. ConfigWrong: this home is no site of it.
    """
    from federated import ending
    from federated.place import held
    from federated.status import newest_job

    found = ending.heard(session.home, name, _content(path), who=session.who)
    place = held(session.home, name)
    running = newest_job(session.home, place)
    if running is not None and running.state in ("running", "waiting"):
        jobs.stop(session.home, running.id, who=session.who)
    gone = ending.retire(session.home, place, who=session.who)
    return {"federation": name, "version": found.version, "retired": gone}


def _checks(session: Session, name: str, port: int | None, *, linked: bool = True) -> list[Check]:
    from federated import preflight, rules, standing
    from federated.setup import gateway_of

    place = standing.at(session.home, name, "coordinator", "site")
    federation = standing.agreed(place)
    if standing.side(place) == "coordinator":
        own = port or gateway_of(federation.gateway)[1]
        return preflight.of_coordinator(session.home, place, federation, own)
    base = standing.noted(place).base or federation.model.base
    return preflight.of_site(session.home, place, federation, rules.kept(place), base, linked=linked)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(LONGEST + 1)
    except OSError as problem:
        raise NotFound(f"There is no file {path}.", "Check the path.") from problem
    if len(content) > LONGEST:
        raise TrustRefused("This file is too long for a request or a kit.", "Check the path.")
    return content
