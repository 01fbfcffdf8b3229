"""The two jobs of a federation: `coordinate` runs the rounds, `take_part` answers them at a site.

Both run in the jail without a network; the link beside them (links.py) has it. specs: {"federation", "host",
"port", "name"} and {"federation", "dataset", "base", "gateway", "fab", "carried"}: a carried site has no link
(stick.py). Killed at any moment, a job that is
run again goes on: the rounds and the answers lie in the federation's folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, JobFailed, NoRoom
from appliance.core.job import Job
from appliance.core.reading import read_bytes
from appliance.data import store
from appliance.models import registry
from appliance.security.trust.identity import Identity, identity_of
from federated import checkpoint, description, ending, hub, member, standing
from federated.course import Course
from federated.description import Federation
from federated.enrol import round_key
from federated.flower.fab import fab_sha256
from federated.flower.frames import Line
from federated.place import Place, held
from federated.policy import Policy, Reason, policy_of
from federated.seat import rounds_at
from federated.secagg.federation import SiteKeys
from federated.stick import HubStick, SiteStick


def coordinate(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Run all rounds, end the federation, and enter the adapter they made.

    Raises:
        JobFailed: the rounds cannot go on; what is committed stays. ConfigWrong, TrustRefused, ModelRejected:
            agreement, keys or base are not in order.
    """
    from federated.starting import fresh, released

    place = held(job.home, spec["federation"])
    own, line = _identity(job), HubStick(_line(job), place.stick)
    newest = _newest(place)
    agreement, signature = read_bytes(place.agreement), read_bytes(place.signature)
    federation = description.opened(agreement, signature, own.key)
    name = spec.get("name") or f"{federation.name}-{job.id}"
    registry.check_free(job.home, name, job.id)
    start = fresh(job.home, federation)
    course = Course(
        home=place.path,
        federation=federation,
        digest=description.digest(agreement),
        layout=start.layout,
        start=start.vector,
        sign=own.sign,
    )
    done = hub.run(
        course,
        line,
        _teller(job, federation.rounds.count),
        agreement=agreement,
        signature=signature,
        clock=time.time,
        over=lambda: False,
        newest=newest,
        closed=lambda: ending.closed(job.home, federation.name, who=job.who),
    )
    ended = description.parsed(read_bytes(place.agreement)).ended
    if done < federation.rounds.count and not ended:
        raise JobFailed(
            f"{done} of {federation.rounds.count} rounds are done; too few sites answered the next one.",
            f"See why: cloister federate status {federation.name}. Then: cloister job resume {job.id}",
        )
    if done:
        _, state = course.last()
        name = released(job, federation, start, state.adapter, name=name, facts=_facts(federation, place))
    ending.retire(job.home, place, who=job.who)
    return {"name": name if done else None, "rounds": done, "base": start.base.name, "ended": True}


def take_part(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Answer rounds until the federation has ended, and destroy the keys of it; or until the job is stopped.

    Raises:
        PrivacyRefused, BudgetSpent, DataRejected, ModelRejected, ConfigWrong: as any training.
    """
    from federated.seat import Seat
    from federated.training import frozen_sha256, trainer

    place = held(job.home, spec["federation"])
    if standing.agreed(place).ended:
        return _over(job, place)
    own, line = _identity(job), SiteStick(place.stick) if spec.get("carried") else _line(job)
    federation = description.parsed(read_bytes(place.agreement))
    seated = next((site for site in federation.sites if site.key == own.key), None)
    if seated is None:
        raise ConfigWrong(f"This site is not in {federation.name}.", "See: cloister federate request --help")
    dataset = store.get(job.home, spec["dataset"])
    made = trainer(job, federation, dataset=spec["dataset"], base=spec["base"], work=job.folder)
    frozen = frozen_sha256(made.setup.model) if federation.model.freeze_a else None

    def versions(asked: Federation) -> Reason | None:
        same = made.setup.base.sha256 == asked.model.sha256 and made.layout.sha256() == asked.model.layout
        if not same or frozen not in (None, asked.model.frozen):
            return "base"
        if (asked.code.fab, asked.code.flwr) != (fab_sha256(), version("flwr")):
            return "versions"
        return None if _same_task(asked, dataset) else "task"

    def policy() -> Policy:
        return policy_of(read_bytes(place.policy))

    seat = Seat(
        home=place.seat,
        name=seated.name,
        layout=made.layout,
        policy=policy,
        unit=store.unit_of(dataset),
        sign=own.sign,
        train=made.train,
        loss=made.loss,
        own_versions=versions,
        keys=_round_keys(place, seated.name, own) if federation.rounds.secure else None,
    )
    told = _teller(job, federation.rounds.count)
    plan = made.plan
    job.emit("plan", **plan.as_dict(), noise_on_mean=plan.noise_on_mean, dataset=dataset.name)
    if member.serve(seat, line, told, over=lambda: False):
        with transaction(job.home) as link:
            ending.record_heard(link, federation.name, standing.agreed(place), who=job.who)
        return _over(job, place)
    raise JobFailed("The link to the coordinator ended.", f"Go on with `cloister job resume {job.id}`.")


def _over(job: Job, place: Place) -> dict[str, Any]:
    """A site whose federation has ended."""
    ending.retire(job.home, place, who=job.who)
    return {"federation": place.path.name, "rounds": rounds_at(place.seat), "ended": True}


def _round_keys(place: Place, site: str, own: Identity) -> SiteKeys:
    return SiteKeys(site=site, sign=own.signing, x25519=round_key(place))


def _newest(place: Place) -> Callable[[], tuple[bytes, bytes] | None]:
    """What is new of the agreement since the last look; its file is written after its signature."""
    seen = place.agreement.stat().st_mtime_ns

    def look() -> tuple[bytes, bytes] | None:
        nonlocal seen
        if (now := place.agreement.stat().st_mtime_ns) == seen:
            return None
        seen = now
        return read_bytes(place.agreement), read_bytes(place.signature)

    return look


def _same_task(asked: Federation, dataset: store.Dataset) -> bool:
    task = asked.task
    return (task.kind, task.prompt, tuple(task.labels)) == (dataset.task, dataset.prompt, dataset.labels)


def _identity(job: Job) -> Identity:
    if not job.home.identity.exists():
        raise ConfigWrong(
            "This site has no keys yet.", "Make them: cloister init, or cloister trust init NAME"
        )
    return identity_of(read_bytes(job.home.identity))


def _line(job: Job) -> Line:
    if job.line is None:
        raise ConfigWrong("This job was started without its link.", "Install the package again.")
    return Line(job.line)


def _teller(job: Job, rounds: int) -> Any:
    def told(what: str, **facts: Any) -> None:
        with suppress(NoRoom):  # what is told is no record; rounds that need the disk fail by themselves
            job.emit("federation", what=what, **facts)
            if what == "round" and facts.get("state") == "done":
                job.progress("rounds", facts["round"], rounds)

    return told


def _facts(federation: Federation, place: Place) -> dict[str, Any]:
    """What the registry keeps of how the adapter was made."""
    records = [
        checkpoint.read_record(place.path, number, federation.coordinator_key)
        for number in range(1, federation.rounds.count + 1)
    ]
    task = federation.task
    return {
        "task": {"kind": task.kind, "prompt": task.prompt, "labels": list(task.labels)},
        "federation": {
            "name": federation.name,
            "id": federation.id,
            "rule": federation.rounds.rule,
            "rounds": [
                {"round": one.round, "sites": sorted(one.weights), "refused": one.refused}
                for one in records
                if one
            ],
            "privacy": {
                "unit": federation.training.unit,
                "epsilon_per_site": federation.training.epsilon if federation.training.private else None,
                "delta": federation.training.delta,
                "holds": "each site's own ledger says what was spent there",
            },
        },
    }
