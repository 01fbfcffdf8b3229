"""Makes a federation at its coordinator: an authority of its own, and the first version of the agreement.

The first version has no sites; each approval (approve.py) makes the next one.
"""

from __future__ import annotations

import re
import secrets
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.files import write_private
from appliance.core.home import Home
from appliance.core.reading import local
from appliance.models import registry
from appliance.models.load import load_torch
from appliance.security import audit
from appliance.security.people import guard
from appliance.train.adapt import adapt
from federated import authority, description, pki, standing
from federated.description import Federation
from federated.faults import faults
from federated.flower.fab import fab_sha256
from federated.training import frozen_sha256, settings_of, trained

_NOTHING = "0" * 64
_GATEWAY = re.compile(r"([A-Za-z0-9.-]{1,253}):([0-9]{1,5})")
_LATER = 30  # days that certificates outlast the agreement, so that its end is what a site is told


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is agreed on: `lora`, `rounds`, `training` and `task` are fields of their parts (description.py).

    `gateway` is host:port as sites reach it, `hosts` other names of that machine.
    """

    name: str
    gateway: str
    base: str
    lora: dict[str, Any]
    task: dict[str, Any]
    rounds: dict[str, Any]
    training: dict[str, Any]
    days: int = 90
    hosts: Sequence[str] = ()


def init(
    home: Home, draft: Draft, *, who: str, keep_at: Path | None = None, passphrase: str = ""
) -> Federation:
    """Make a federation; the authority's key goes into the home, or under `passphrase` into `keep_at`.

    Raises:
        ConfigWrong: the name is taken, a setting is wrong, or the home has no keys.
        NotFound, ModelRejected: the base is not here, or damaged.
    """
    own, place = standing.own_keys(home), standing.free(home, draft.name)
    host = gateway_of(draft.gateway)[0]
    federation = measured(home, drafted(home, draft, coordinator=site_name(own.name), key=own.key))
    now = datetime.now(UTC)
    root_key, server_key = pki.new_key(), pki.new_key()
    days = draft.days + _LATER
    root = pki.authority(root_key, draft.name, now=now, days=days)
    hosts = list(dict.fromkeys([host, *draft.hosts]))
    server = pki.server_certificate(root, root_key, server_key.public_key(), hosts, now=now, days=days)
    content, signature = standing.signed(federation, own)
    try:
        with transaction(home) as link:
            guard.spend(link, home, who, "federate.coordinate", draft.name)
            place.pki.mkdir(mode=0o700, parents=True)
            standing.put(place, content, signature)
            write_private(place.pki / "ca.crt", pki.pem(root))
            write_private(place.pki / "server.key", pki.key_pem(server_key))
            write_private(place.pki / "server.pem", pki.pem(server))
            authority.keep(place, root_key, keep_at, passphrase)
            audit.record(
                link,
                who=who,
                what="federate.init",
                target=draft.name,
                agreement=description.digest(content),
                authority=pki.fingerprint(root),
                base=federation.model.sha256,
            )
    except BaseException:
        shutil.rmtree(place.path, ignore_errors=True)
        raise
    return federation


def drafted(home: Home, draft: Draft, *, coordinator: str, key: str) -> Federation:
    """The first version, with the adapter's layout still open.

    Raises:
        ConfigWrong: a setting is wrong; the message names it. NotFound: there is no such base.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    base = registry.get(home, draft.base)
    if base.kind != "base":
        raise ConfigWrong(f"{base.name} is not a base model.", "Choose one with `cloister model list`.")
    gateway_of(draft.gateway)
    content = {
        "v": 1,
        "id": secrets.token_hex(32),
        "version": 1,
        "name": draft.name,
        "coordinator": coordinator,
        "coordinator_key": key,
        "gateway": draft.gateway,
        "created": now,
        "expires": now + timedelta(days=draft.days),
        "model": {
            "base": base.name,
            "sha256": base.sha256,
            "layout": _NOTHING,
            "frozen": _NOTHING,
            **draft.lora,
        },
        "task": draft.task,
        "rounds": draft.rounds,
        "training": draft.training,
        "code": {"cloister": version("cloister"), "flwr": version("flwr"), "fab": fab_sha256()},
        "sites": [],
    }
    try:
        return Federation.model_validate(content)
    except ValidationError as problem:
        raise ConfigWrong(
            f"No agreement can say this: {faults(problem)}.",
            "Give other options: cloister federate init --help",
        ) from None


def measured(home: Home, federation: Federation) -> Federation:
    """With the layout and the frozen arrays of the adapter that the base and the settings make.

    Raises:
        NotFound, ModelRejected: the base is not here, or damaged. ConfigWrong: it has no such layers.
    """
    base = registry.intact(home, federation.model.base)[0]
    with warnings.catch_warnings():  # of what peft and transformers say to each other
        warnings.simplefilter("ignore", FutureWarning)
        model = adapt(load_torch(local(base.path))[0], settings_of(federation))
    layout, _ = trained(model)
    frozen = frozen_sha256(model) if federation.model.freeze_a else _NOTHING
    part = federation.model.model_copy(update={"layout": layout.sha256(), "frozen": frozen})
    return federation.model_copy(update={"model": part})


def gateway_of(text: str) -> tuple[str, int]:
    """(host, port) of a gateway.

    Raises:
        ConfigWrong: it is none.
    """
    found = _GATEWAY.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ConfigWrong(f"{text[:60]} is no gateway.", "Give HOST:PORT, such as hub.example.org:8443.")
    return found[1], int(found[2])


def site_name(name: str) -> str:
    """What a home is called in an agreement: its own name with letters, digits and hyphens only."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:64] or "coordinator"
