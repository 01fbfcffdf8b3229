"""Homes to look at as an evidence report does, and a model with a claim of privacy in one."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.db import transaction
from appliance.core.files import sha256_file, work_folder
from appliance.core.home import Home
from appliance.data import store
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops.evidence.rows import PROBES
from appliance.ops.evidence.shape import Found, Look
from appliance.privacy import accountant, ledger, logged
from appliance.privacy.accountant import Steps
from appliance.security import audit
from appliance.security.log.checkpoint import Signer, verifier
from appliance.train.plan import Plan
from appliance.train.settings import Settings
from appliance.train.statement import statement

KEY = Signer(name="cloister/st-anna", key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
CANARY = "zq-canary-4419"
STEPS, UNITS, DELTA = 40, 1000, 5e-5


def now() -> datetime:
    return datetime.now(UTC)


def look(home: Home, **more: Any) -> Look:
    return Look(home, now(), (verifier(KEY),), **more)


def ask(home: Home, name: str, **more: Any) -> Found:
    """What the probe of this name finds now."""
    return PROBES[name](look(home, **more))


def outcome(home: Home, name: str, **more: Any) -> str:
    return ask(home, name, **more).outcome


def add_data(
    home: Home, *, unit: str | None = "patient", synthetic: bool = False, job: str = "0001"
) -> store.Dataset:
    """A small data set with the canary in every record."""
    draft = work_folder(home.datasets / ".draft")
    rows = [Record(id=str(n), text=f"{CANARY} {n}", answer="a", unit=f"p{n}") for n in range(6)]
    store.write_splits(draft, {"train": rows[:4], "val": rows[4:5], "test": rows[5:]})
    made, _ = store.publish(
        home,
        draft,
        name="inbox",
        task="label",
        labels=("a",),
        unit=unit,
        counts={"train": 4, "val": 1, "test": 1},
        units={"train": UNITS, "val": 1, "test": 1},
        prompt=store.PROMPTS["label"],
        synthetic=synthetic,
        facts={},
        job=job,
        who="mira",
    )
    return made


def add_file(home: Home, name: str, **more: Any) -> Model:
    """A registry entry with a file of its own."""
    path = home.models / name / f"{name}.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF" + name.encode())
    digest = sha256_file(path)
    entry = {"kind": "gguf", "path": path, "sha256": digest, "size": 9, **more}
    return registry.add(home, Model(name=name, **entry), who="mira")


def plan() -> Plan:
    return Plan(
        steps=STEPS,
        learning_rate=0.1,
        weight_decay=0.0,
        units=UNITS,
        records=UNITS,
        unit="patient",
        sample_rate=0.35,
        sampling="unit",
        expected_batch=0.35 * UNITS,
        noise_multiplier=4.0,
        delta=DELTA,
        accountant=accountant.ACCOUNTANT,
    )


def add_private(home: Home, *, charged: int = STEPS, name: str = "lora-1", **claim: Any) -> Model:
    """A model whose run is charged and whose record is in order; `claim` replaces what it states."""
    made, settings, random = plan(), Settings(max_grad_norm=0.2), np.random.default_rng(1)
    ledger.open_budget(home, "inbox", unit="patient", units=UNITS, delta=DELTA, who="mira")
    steps = made.charged(charged)
    purse = ledger.Purse(home, "inbox", job="0002", run=steps, limit=8.0)
    purse.charge(charged)
    privacy = {
        **statement(made, settings),
        "delta": DELTA,
        "epsilon": accountant.epsilon([made.charged(STEPS)], DELTA),
        "steps_charged": STEPS,
        "steps_released": STEPS,
        **claim,
    }
    history = [
        {"units": int(size), "noise_ratio": float(math.sqrt(ratio / 20_000))}
        for size, ratio in zip(
            random.binomial(UNITS, 0.35, STEPS), random.chisquare(20_000, STEPS), strict=True
        )
    ]
    training = {
        "plan": made.as_dict(),
        "settings": settings.as_dict(),
        "history": history,
        "trained": 20_000,
    }
    facts = {"privacy": privacy, "training": training, "synthetic": False}
    add_file(home, "base", kind="base")
    return add_file(home, name, kind="adapter", dataset="inbox@1", parent="base", job="0002", facts=facts)


def restate(home: Home, name: str, **claim: Any) -> None:
    """Change what a model states of its privacy; `training` in it changes the run's own record."""
    model = registry.get(home, name)
    training = {**model.facts["training"], **claim.pop("training", {})}
    facts = {**model.facts, "privacy": {**model.facts["privacy"], **claim}, "training": training}
    registry.renew(home, model, facts, who="mira")


def add_report(home: Home, model: str, *, passed: bool, created: str = "2026-11-01") -> None:
    with transaction(home) as link:
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, 'inbox@1', ?, ?, ?, '', 0)",
            (model, created, created, int(passed)),
        )
        audit.record(
            link, who="mira", what="model.evaluate", target=model, job=created, passed=passed, partial=False
        )


def charge_more(home: Home, noise: float) -> None:
    """Charge a run that no model tells of."""
    run = Steps(noise_multiplier=noise, sample_rate=0.35, steps=1)
    with transaction(home) as link:
        row = link.execute(
            "INSERT INTO ledger (dataset, job, created, noise_multiplier, sample_rate, draws, steps, facts)"
            " VALUES ('inbox', '0009', '', ?, ?, 1, ?, '{}')",
            (run.noise_multiplier, run.sample_rate, run.steps),
        ).lastrowid
        told = {"total": 1, "steps": 1, "noise": noise, "rate": run.sample_rate, "draws": 1}
        entry = logged.charge(row or 0, job="0009", **told)
        audit.record(link, who="mira", what=logged.CHARGED, target="inbox", **entry)


def site_packages(folder: Path) -> Path:
    """An environment with nothing in it."""
    place = folder / "lib" / "python3.11" / "site-packages"
    place.mkdir(parents=True)
    return place
