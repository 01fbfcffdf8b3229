"""The sites of a simulation, in one process: they share the base, and each has its own seat, key and records.

Any process that has the simulation's folder can play any site: what a site has answered lies in the folder.

    world.json                     where the base is, and what is learnt
    agreement.toml, agreement.sig  as the sites of a real federation have them
    sites/NAME/records.jsonl       its training records
    sites/NAME/seat                its seat's folder (seat.py)

The keys are made from the sites' names: nothing here is worth signing for anybody else.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ApplianceError
from appliance.data.records import Record, record_from
from appliance.data.store import Dataset
from appliance.models.encoding import Encoded, Example
from appliance.models.load import device, encoder_for, load_torch
from appliance.models.registry import Model
from appliance.models.task import Task, task_from
from appliance.train.adapt import adapt
from appliance.train.asked import objective_for
from appliance.train.engine import Engine
from appliance.train.material import Material, material_of
from appliance.train.objective import loss_for
from appliance.train.plan import Plan, plan_open, plan_private, unspent
from appliance.train.settings import Settings
from appliance.train.setup import Setup
from federated import description
from federated.description import Federation
from federated.layout import Array
from federated.policy import Policy
from federated.seat import Learnt, Request, Seat, answer
from federated.training import Trainer, checked_engine, settings_of, trainer_on


@dataclass(frozen=True, kw_only=True)
class World:
    """What a simulation is about. `batch` is the records of a step without privacy; with `train` False sites
    send random changes instead of training, to measure everything else.
    """

    base: str
    task: dict[str, Any]
    unit: str
    batch: int
    train: bool = True

    def write(self, folder: Path) -> None:
        """As world.json."""
        (folder / "world.json").write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A site before the first round: how many units it has, the epsilon that all rounds cost it, or why it
    cannot take part."""

    site: str
    units: int
    epsilon: float | None
    refused: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A site's answer to a round: a signed update or a code, and the CPU seconds that it took."""

    site: str
    content: bytes | str
    seconds: float


def site_key(name: str) -> Ed25519PrivateKey:
    """The key of a simulated site, or of the coordinator, "hub"."""
    return Ed25519PrivateKey.from_private_bytes(
        hashlib.sha256(f"cloister simulation {name}".encode()).digest()
    )


def prepared(folder: str, sites: list[str]) -> list[Ready]:
    """Have the sites read their records and make their plan."""
    return [_played(folder).ready(site) for site in sites]


def answered(folder: str, sites: list[str], number: int, cohort: int, adapter: bytes) -> list[Answer]:
    """What the sites answer to round `number`, which begins with `adapter` (float32, little-endian)."""
    played = _played(folder)
    request = Request(
        agreement=played.file,
        signature=played.signature,
        round=number,
        cohort=cohort,
        adapter=np.frombuffer(adapter, "<f4").astype(np.float32),
    )
    return [played.answer(site, request) for site in sites]


class Played:
    """The sites of a simulation's folder: base and engine once, records and plan of each when it is asked."""

    def __init__(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(1)  # each process plays a site of its own
        self.folder = folder
        self.world = World(**json.loads((folder / "world.json").read_text()))
        self.file = (folder / "agreement.toml").read_bytes()
        self.signature = (folder / "agreement.sig").read_bytes()
        self.federation: Federation = description.parsed(self.file)
        self.settings, self.task = settings_for(self.federation, self.world), task_from(self.world.task)
        self.model, self.tokenizer = loaded(self.world, self.settings)
        self._made: dict[str, tuple[Material, Plan]] = {}
        self._shared: Engine | None = None

    @cached_property
    def encoder(self) -> Any:
        """Texts to tokens, for the base."""
        context = int(getattr(self.model.config, "max_position_embeddings", 2048))
        longest = min(self.settings.max_tokens, context)
        return encoder_for(self.tokenizer, Path(self.world.base), self.task, longest)

    @cached_property
    def loss(self) -> Any:
        """The product's loss of this task."""
        vocabulary = int(self.model.config.vocab_size)
        return loss_for(self.settings.objective, self.settings, self.encoder, vocabulary, None)

    def ready(self, site: str) -> Ready:
        """See `prepared`."""
        try:
            made = self.trainer(site)
        except ApplianceError as problem:
            return Ready(site=site, units=0, epsilon=None, refused=problem.message)
        return Ready(site=site, units=made.setup.material.units, epsilon=made.plan.epsilon_after, refused="")

    def answer(self, site: str, request: Request) -> Answer:
        """See `answered`."""
        seat, began = self.seat(site, request.round), time.process_time()
        content = answer(seat, request, now=datetime.now(UTC))
        return Answer(site=site, content=content, seconds=time.process_time() - began)

    def seat(self, site: str, number: int) -> Seat:
        """A site's seat: it agrees to all that the federation asks, for that is what is being planned."""
        training = self.federation.training
        made = self.trainer(site, number)

        def policy() -> Policy:
            return Policy(
                dataset=site,
                epsilon=training.epsilon,
                delta=training.delta,
                min_cohort=2,
                private_only=False,
                tell_loss=False,
            )

        def drawn(adapter: Array, number: int) -> Learnt:
            seed = [number, *site.encode()]
            change = np.random.default_rng(seed).normal(scale=1e-3, size=adapter.size)
            return Learnt(change=change.astype(np.float32), units=made.setup.material.units)

        return Seat(
            home=self.folder / "sites" / site / "seat",
            name=site,
            layout=made.layout,
            policy=policy,
            unit=self.world.unit,
            sign=site_key(site).sign,
            train=made.train if self.world.train else drawn,
            loss=made.loss,
            own_versions=lambda federation: None,
        )

    def trainer(self, site: str, number: int = 1) -> Trainer:
        """A site's trainer for round `number`: what it draws does not depend on which process plays it.

        Raises:
            PrivacyRefused, DataRejected: the site has too few units, or none that can be used.
        """
        if site not in self._made:
            self._made[site] = self._prepared(self.folder / "sites" / site)
        return self._on(*self._made[site], start=(number - 1) * self.federation.training.steps)

    def _prepared(self, folder: Path) -> tuple[Material, Plan]:
        """A site's records in tokens and its plan, made by the first process that plays it."""
        kept = folder / "prepared.json"
        if kept.exists():
            held = json.loads(kept.read_bytes())
            plan = Plan(**held.pop("plan"))
            groups = [[_example(one) for one in group] for group in held.pop("groups")]
            records = [_example(one) for one in held.pop("records")]
            return Material(groups=groups, records=records, **held), plan
        with (folder / "records.jsonl").open("rb") as stream:
            material = material_of([record_from(line) for line in stream], [], self.encoder, self.settings)
        plan = planned(material, self.settings, self.world.unit)
        kept.write_text(json.dumps(asdict(material) | {"plan": plan.as_dict()}))
        return material, plan

    def trainer_of(self, records: list[Record]) -> Trainer:
        """A trainer on these records, as a site's."""
        material = material_of(records, [], self.encoder, self.settings)
        return self._on(material, planned(material, self.settings, self.world.unit))

    def _on(self, material: Material, plan: Plan, start: int = 0) -> Trainer:
        setup = Setup(
            settings=self.settings,
            dataset=_dataset(self.world, self.task, self.folder),
            base=Model(name="base", kind="base", path=Path(self.world.base), sha256="", size=0),
            words=Path(self.world.base),
            encoder=self.encoder,
            material=material,
            model=self.model,
            trained=sum(part.numel() for part in self.model.parameters() if part.requires_grad),
            loss=self.loss,
            device=device(),
            secrets=[],
        )
        return trainer_on(None, setup, plan, self.federation, self._engine(setup), start)

    def _engine(self, setup: Setup) -> Engine | None:
        if self.settings.private and self._shared is None:
            self._shared = checked_engine(setup)
        return self._shared


def _example(held: dict[str, Any]) -> Example:
    return Encoded(prompt=tuple(held["prompt"]), answer=tuple(held["answer"]), cut=held["cut"])


@cache
def _played(folder: str) -> Played:
    return Played(Path(folder))


def settings_for(federation: Federation, world: World) -> Settings:
    """The settings that the agreement fixes, for the simulated task."""
    settings = replace(settings_of(federation), batch=world.batch)
    return replace(settings, objective=objective_for(settings, task_from(world.task).kind))


def loaded(world: World, settings: Settings) -> tuple[Any, Any]:
    """The base with a fresh adapter, and its tokenizer."""
    model, tokenizer = load_torch(Path(world.base))
    return adapt(model, settings), tokenizer


def planned(material: Material, settings: Settings, unit: str) -> Plan:
    """What a site with these records would plan, with nothing spent before.

    Raises:
        PrivacyRefused: see plan_private.
    """
    if not settings.private:
        return plan_open(settings, units=material.units, records=len(material.records))
    return plan_private(
        settings,
        units=material.units,
        candidates=len(material.groups),
        records=len(material.records),
        unit=unit,
        budget=unspent(settings, dataset="simulated", unit=unit, units=material.units),
    )


def _dataset(world: World, task: Task, folder: Path) -> Dataset:
    return Dataset(
        name="simulated",
        version=1,
        folder=folder,
        task=task.kind,
        labels=task.labels,
        unit=world.unit,
        counts={},
        units={},
        prompt=task.prompt,
        sha256="",
        synthetic=False,
    )
