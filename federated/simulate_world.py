"""The agreement of a simulated federation, its folder, and the judge of its adapters."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from appliance.core.errors import ConfigWrong
from appliance.data.records import Record, record_line
from appliance.evaluate.backends import TorchScorer
from appliance.evaluate.compare import share_interval
from appliance.evaluate.score import score, tokenise
from appliance.models.task import task_from
from appliance.privacy.ledger import delta_for
from federated import description, seat, simulated
from federated.aggregate import least_sites
from federated.course import Course
from federated.description import Code, Federation, Model, Rounds, Site, Task, Training
from federated.faults import faults
from federated.layout import Array, Layout, parted
from federated.packing import Packing, packed_size
from federated.simulated import World, site_key
from federated.training import trained

_NONE = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the sites agree to. `rule` is one of description.Rounds, or "products": the mean of the products
    B A. `sample_rate` is what a private step draws of a site's units, `batch` what another step takes of its
    records. A `learning_rate` or `clip_bound` of 0 takes the usual one: a bound that clips nothing.
    """

    rounds: int = 10
    seed: int = 0
    rule: str = "mean"
    packing: Packing = "i8"
    server: str = "fedavg"
    server_learning_rate: float = 1.0
    proximal_mu: float = 0.0
    private: bool = True
    epsilon: float = 8.0
    steps: int = 5
    sample_rate: float = 0.35
    batch: int = 16
    learning_rate: float = 0.0
    max_grad_norm: float = 0.2
    clip_bound: float = 0.0
    weight_clamp: float = 2.0
    rank: int = 4
    alpha_lora: int = 8
    targets: tuple[str, ...] = ("v_proj", "o_proj", "down_proj")
    layers: int = 0
    freeze_a: bool | None = None
    max_tokens: int = 512


_RATES = {True: 0.05, False: 5e-3}  # with and without privacy


class Judge:
    """Measures adapters on held-out records; `final` is what it found last."""

    def __init__(self, model: Any, tokenizer: Any, world: World, records: Sequence[Record]) -> None:
        self.layout, self._names = trained(model)
        self._task = task_from(world.task)
        self._model, self._scorer = model, TorchScorer.of(model, tokenizer, Path(world.base))
        encoder = self._scorer.encoder(self._task)
        self._rows, self._trie = tokenise(encoder, records), encoder.trie()
        owners = {record.unit or record.id: None for record in records}
        numbers = {owner: number for number, owner in enumerate(owners)}
        self._clusters = np.array([numbers[record.unit or record.id] for record in records])
        self.update_bytes = 0
        self.final: dict[str, Any] = {}

    def of(self, adapter: Array) -> float:
        """The share of held-out records that an adapter gets right."""
        with torch.no_grad():
            for name, values in parted(self.layout, adapter).items():
                self._names[name].copy_(torch.from_numpy(values.copy()))
        self._model.eval()
        right = score(self._scorer, self._rows, self._task, self._trie).right
        found = share_interval(right, self._clusters)
        self.final = {
            "accuracy": round(found.value, 4),
            "low": round(found.low, 4),
            "high": round(found.high, 4),
            "records": len(self._rows),
        }
        return round(found.value, 4)


def federation_of(
    terms: Terms, world: World, units: Mapping[str, int], held_out: Sequence[Record]
) -> tuple[Federation, Array, Judge]:
    """The agreement between sites with so many units, the adapter that it begins with, and its judge.

    Raises:
        ConfigWrong: terms that cannot be.
    """
    torch.set_num_threads(1)
    draft = drafted(terms, world, units, clip_bound=1.0)
    model, tokenizer = simulated.loaded(world, simulated.settings_for(draft, world))
    judge = Judge(model, tokenizer, world, held_out)
    layout, names = trained(model)
    start = np.concatenate(
        [names[name].detach().float().cpu().numpy().reshape(-1) for name, _ in layout.shapes]
    )
    loosest = draft.training.learning_rate * terms.steps * math.sqrt(layout.values)  # Adam moves no farther
    federation = drafted(terms, world, units, clip_bound=terms.clip_bound or 4 * loosest)
    federation = federation.model_copy(
        update={"model": federation.model.model_copy(update={"layout": layout.sha256()})}
    )
    judge.update_bytes = packed_size(layout.values, terms.packing)
    return federation, start, judge


def laid_out(
    folder: Path,
    federation: Federation,
    world: World,
    parts: Mapping[str, Sequence[Record]],
    start: Array,
    layout: Layout,
) -> Course:
    """Write the folder that simulated.py describes; the course of the rounds."""
    hub = site_key("hub")
    agreement = description.written(federation)
    signature = hub.sign(description.PURPOSE + agreement)
    (folder / "agreement.toml").write_bytes(agreement)
    (folder / "agreement.sig").write_bytes(signature)
    world.write(folder)
    first: Path | None = None
    for name, records in parts.items():
        home = folder / "sites" / name
        home.mkdir(parents=True)
        with (home / "records.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(record_line(record) + "\n" for record in records)
        if first is None:
            first = home / "seat"
            _join(first, name, layout, agreement, signature, federation)
            continue
        (home / "seat").mkdir()
        for file in ("agreement.toml", "agreement.sig"):  # as `join` writes them, but 1,000 times half a MB
            os.link(first / file, home / "seat" / file)
    return Course(
        home=folder / "hub",
        federation=federation,
        digest=description.digest(agreement),
        layout=layout,
        start=start,
        sign=hub.sign,
    )


def _join(
    home: Path, name: str, layout: Layout, agreement: bytes, signature: bytes, federation: Federation
) -> None:
    unused: Any = None
    joining = seat.Seat(
        home=home,
        name=name,
        layout=layout,
        policy=unused,
        unit=federation.training.unit,
        sign=site_key(name).sign,
        train=unused,
        loss=unused,
        own_versions=unused,
    )
    seat.join(joining, agreement, signature, federation.coordinator_key)


def drafted(terms: Terms, world: World, units: Mapping[str, int], *, clip_bound: float) -> Federation:
    """The agreement between sites with so many units; its layout is not yet known.

    Raises:
        ConfigWrong: terms that cannot be.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    products, rule = terms.rule == "products", "mean" if terms.rule == "products" else terms.rule
    freeze_a = not products if terms.freeze_a is None else terms.freeze_a
    chosen: Any = {"rule": rule, "server": terms.server}
    quorum = max(2, least_sites(chosen["rule"]), len(units) // 2)
    try:
        return Federation(
            v=1,
            id=_NONE,
            version=1,
            name="simulated",
            coordinator="hub",
            coordinator_key=site_key("hub").public_key().public_bytes_raw().hex(),
            gateway="nowhere:1",
            created=now,
            expires=now + timedelta(days=365),
            model=Model(
                base="base",
                sha256=_NONE,
                layout=_NONE,
                rank=terms.rank,
                alpha=terms.alpha_lora,
                targets=list(terms.targets),
                layers=terms.layers,
                freeze_a=freeze_a,
                frozen=_NONE,
                seed=terms.seed,
            ),
            task=Task(
                kind=world.task["kind"], prompt=world.task["prompt"], labels=list(world.task["labels"])
            ),
            rounds=Rounds(
                count=terms.rounds,
                quorum=quorum,
                min_cohort=2,
                deadline_minutes=1e6,
                packing=terms.packing,
                clip_bound=clip_bound,
                weight_clamp=terms.weight_clamp,
                server_learning_rate=terms.server_learning_rate,
                proximal_mu=terms.proximal_mu,
                products=products,
                **chosen,
            ),
            training=Training(
                private=terms.private,
                epsilon=terms.epsilon,
                delta=min(delta_for(max(units.values())), 9e-3),
                unit=world.unit,
                steps=terms.steps,
                sample_rate=terms.sample_rate,
                learning_rate=terms.learning_rate or _RATES[terms.private],
                max_grad_norm=terms.max_grad_norm,
                max_tokens=terms.max_tokens,
            ),
            code=Code(cloister="simulated", flwr="simulated", fab=_NONE),
            sites=[
                Site(
                    name=name,
                    key=site_key(name).public_key().public_bytes_raw().hex(),
                    x25519=f"{number:064x}",
                    node=f"ecdsa-sha2-nistp384 {number:0>160}",
                    certificate=f"{number:064x}",
                    units=count,
                )
                for number, (name, count) in enumerate(units.items())
            ],
        )
    except ValidationError as problem:
        raise ConfigWrong(
            f"These terms cannot be: {faults(problem, 1)}.", "See: cloister federate simulate --help"
        ) from None
