"""What must be in order before a site joins, and before either side starts: each check by name, as data.

`stops` is the step that a failed check stops: "join" or "start". When a site joins, the coordinator need not
run yet, so what only its gateway can tell stops the start alone.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from appliance.core.errors import ApplianceError, ConfigWrong
from appliance.core.home import Home
from appliance.data import store
from appliance.models import registry
from appliance.privacy import ledger
from appliance.train.preview import preview
from federated import standing
from federated.calling import ask_clock
from federated.description import Federation, Site
from federated.flower.fab import fab_sha256
from federated.place import Place
from federated.policy import WORDS, Policy, objections

ROOM = 1 << 30  # bytes: answers, rounds and logs of an adapter of any usual size
Step = Literal["join", "start"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `found` is what was seen; of a failed one `cause` and `next` say why and what to do."""

    name: str
    good: bool
    found: str = ""
    cause: str = ""
    next: str = ""
    stops: Step = "join"


def of_site(
    home: Home,
    place: Place,
    federation: Federation,
    policy: Policy,
    base: str,
    *,
    linked: bool = True,
    now: datetime | None = None,
) -> list[Check]:
    """All checks of a site, in the order in which they are worth mending; if `linked`, of the gateway too."""
    when = now or datetime.now(UTC)
    site = standing.noted(place).site
    found = [
        *_agreement(federation, when),
        *_versions(federation),
        _base(home, federation, base),
        *_records(home, federation, policy, site, when),
    ]
    if all(one.good for one in found):
        found.append(_plan(home, federation, policy, base))
    return [
        *found,
        _disk(home),
        _certificate(place, "site.pem", "the certificate of this site", site, when),
        *(ask_clock(federation, place, Check) if linked else ()),
    ]


def of_coordinator(
    home: Home, place: Place, federation: Federation, port: int, *, now: datetime | None = None
) -> list[Check]:
    """All checks of a coordinator: `port` is what the gateway will listen on."""
    when = now or datetime.now(UTC)
    host = federation.gateway.rpartition(":")[0]
    active = len(federation.active())
    return [
        *_agreement(federation, when),
        *_versions(federation),
        _base(home, federation, federation.model.base),
        _said(
            "sites",
            active >= federation.rounds.quorum,
            f"{active} are in, a round needs {federation.rounds.quorum}",
            "too few sites are in",
            "Approve more: cloister federate approve REQUEST",
            "start",
        ),
        _disk(home),
        _certificate(place, "server.pem", "the certificate of the gateway", host, when),
        _port(port),
    ]


def refuse(checks: list[Check], step: Step) -> None:
    """Refuse a step that a failed check stops; the first is named, and how many others there are.

    Raises:
        ConfigWrong: one stops it.
    """
    steps = ("join",) if step == "join" else ("join", "start")
    bad = [one for one in checks if not one.good and one.stops in steps]
    if bad:
        more = f" ({len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ConfigWrong(f"{bad[0].name}: {bad[0].cause}{more}.", bad[0].next)


def _agreement(federation: Federation, now: datetime) -> Iterator[Check]:
    ended = federation.ended or now >= federation.expires
    yield _said(
        "agreement",
        not ended,
        f"version {federation.version}, until {federation.expires:%Y-%m-%d}",
        "the coordinator has ended it" if federation.ended else f"it ended on {federation.expires:%Y-%m-%d}",
        "The coordinator makes a new federation.",
    )


def _versions(federation: Federation) -> Iterator[Check]:
    for name, agreed in (("cloister", federation.code.cloister), ("flwr", federation.code.flwr)):
        here = version(name)
        yield _said(
            f"version of {name}",
            here == agreed,
            here,
            f"{here} is installed here, {agreed} was agreed on",
            f"Install {name} {agreed} here, or agree anew on {here}.",
        )
    here = fab_sha256()
    yield _said(
        "app",
        here == federation.code.fab,
        here[:16],
        "the app that the rounds run is another one here",
        "Install the same release as the coordinator.",
    )


def _base(home: Home, federation: Federation, name: str) -> Check:
    agreed = federation.model.sha256
    try:
        here = registry.intact(home, name)[0].sha256
    except ApplianceError as problem:
        same = [one.name for one in registry.models(home) if one.sha256 == agreed]
        hint = f"It is here as {same[0]}: add --base {same[0]}." if same else problem.hint
        return Check(name="base", good=False, cause=problem.message.rstrip("."), next=hint)
    return _said(
        "base",
        here == agreed,
        f"{name}, SHA-256 {here[:16]}",
        f"{name} here has SHA-256 {here[:16]}, {agreed[:16]} was agreed on",
        f"Import the agreed base, {federation.model.base}, or name it with --base.",
    )


def _records(home: Home, federation: Federation, policy: Policy, site: str, now: datetime) -> Iterator[Check]:
    try:
        dataset = store.get(home, policy.dataset)
        unit = store.unit_of(dataset)
    except ApplianceError as problem:
        yield Check(name="dataset", good=False, cause=problem.message.rstrip("."), next=problem.hint)
        return
    task = federation.task
    same = (task.kind, task.prompt, tuple(task.labels)) == (dataset.task, dataset.prompt, dataset.labels)
    yield _said(
        "dataset",
        same,
        f"{dataset.title}, {dataset.units['train']} {unit}s to learn from",
        f"{dataset.title} has another task, prompt or labels than agreed",
        "Import the records with the agreed task, prompt and labels (see federate status).",
    )
    yield _seat(federation.site(site), site, dataset.units["train"])
    many = max(policy.min_cohort, federation.rounds.min_cohort)  # how many there are, each round says
    objected = objections(policy, federation, number=0, cohort=many, done=0, unit=unit, now=now)
    objected = [reason for reason in objected if reason not in ("ended", "vetoed", "paused", "hours")]
    yield _said(
        "policy",
        not objected,
        f"epsilon {policy.epsilon:g}, at least {policy.min_cohort} sites",
        "the site's own rules forbid it: " + "; ".join(WORDS[reason] for reason in objected),
        "Agree on less with the coordinator, or change the rules here.",
    )
    if federation.training.private:
        yield _budget(home, federation, dataset, unit)


def _seat(seat: Site | None, name: str, units: int) -> Check:
    cause = ""
    if seat is None:
        cause = f"{name} is not in the agreement"
    elif seat.state != "in":
        cause = f"{name} is {seat.state}"
    elif units > seat.units:
        cause = f"{name} was enrolled with {seat.units} and has {units} now, which the gate refuses"
    found = f"{name}, at most {seat.units if seat else 0}"
    return _said(
        "seat", not cause, found, cause, "Enrol anew: federate leave, then federate request --site OTHER-NAME"
    )


def _budget(home: Home, federation: Federation, dataset: store.Dataset, unit: str) -> Check:
    training, units = federation.training, dataset.units["train"]
    found = ledger.budget(home, dataset.name)
    wrong = hint = ""
    if training.delta >= 1 / units:
        wrong = f"delta {training.delta:g} is not below 1/{units}, so it protects nobody here"
        hint = f"Agree on a delta of {ledger.delta_for(units):.2g} or less."
    elif found is not None and (found.unit != unit or abs(training.delta / found.delta - 1) > 1e-9):
        wrong = f"the budget of {dataset.name} is kept at delta {found.delta:g} for one {found.unit}"
        hint = "Agree on that delta, or import the records under a name of their own."
    elif found is not None and found.spent() >= min(found.epsilon_limit, training.epsilon):
        wrong = f"epsilon {found.spent():.2f} is spent of {min(found.epsilon_limit, training.epsilon):g}"
        hint = f"See: cloister budget show {dataset.name}"
    spent, limit = (found.spent(), found.epsilon_limit) if found else (0.0, ledger.EPSILON_LIMIT)
    return _said("budget", not wrong, f"epsilon {spent:.2f} of {limit:g} spent", wrong, hint)


def _plan(home: Home, federation: Federation, policy: Policy, base: str) -> Check:
    """Whether these records can be trained on as agreed: enough patients, a noise that the budget pays."""
    from federated.training import settings_of

    spec = {"dataset": policy.dataset, "base": base, "settings": settings_of(federation).as_dict()}
    try:
        plan = preview(home, spec)
    except ApplianceError as problem:
        hint = "Take part with more records, or agree on other rounds."
        return Check(name="plan", good=False, cause=problem.message.rstrip("."), next=hint)
    noise = plan["noise_multiplier"]
    said = "no noise" if noise is None else f"noise multiplier {noise:.3f}"
    return Check(name="plan", good=True, found=f"{plan['steps']} steps in all rounds, {said}")


def _disk(home: Home) -> Check:
    left = shutil.disk_usage(home.path).free
    return _said(
        "disk",
        left >= ROOM,
        f"{left / 1e9:.1f} GB free",
        f"{left / 1e9:.1f} GB are free, {ROOM / 1e9:.1f} GB are needed",
        "Free some space on the disk of the home folder.",
    )


def _certificate(place: Place, file: str, what: str, name: str, now: datetime) -> Check:
    """Chain, name and time of one of this home's certificates."""
    cause = ""
    found = "there is none"
    try:
        root = x509.load_pem_x509_certificate((place.pki / "ca.crt").read_bytes())
        own = x509.load_pem_x509_certificate((place.pki / file).read_bytes())
        own.verify_directly_issued_by(root)
        found = f"until {min(own.not_valid_after_utc, root.not_valid_after_utc):%Y-%m-%d}"
        if name not in _names(own):
            cause = f"{what} is not for {name}"
        for one in (own, root):
            if now >= one.not_valid_after_utc:
                cause = f"{what} expired on {one.not_valid_after_utc:%Y-%m-%d}"
            elif now < one.not_valid_before_utc:
                cause = f"{what} begins on {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: look at the clock"
    except OSError:
        cause = f"{what} is not there"
    except (ValueError, TypeError, InvalidSignature):
        cause = f"{what} is not of this federation's authority"
    return _said("certificate", not cause, found, cause, "Get a new one: enrol anew, or ask the coordinator.")


def _names(certificate: x509.Certificate) -> set[str]:
    common = {str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return common
    return {
        *names.get_values_for_type(x509.DNSName),
        *(str(one) for one in names.get_values_for_type(x509.IPAddress)),
    }


def _port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - only to see whether it is free
            taken = ""
        except OSError as problem:
            taken = f"port {port} cannot be had: {(problem.strerror or '').lower()}"
    return _said(
        "port", not taken, f"{port} is free", taken, "Stop what has it, or listen elsewhere: --port.", "start"
    )


def _said(name: str, good: bool, found: str, cause: str, next_: str, stops: Step = "join") -> Check:
    if good:
        return Check(name=name, good=True, found=found, stops=stops)
    return Check(name=name, good=False, found=found, cause=cause, next=next_, stops=stops)
