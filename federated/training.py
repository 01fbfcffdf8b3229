"""The resident trainer of a site: the base stays in memory, a round takes its steps and gives the change.

Loop, clipping, noise and ledger are those of every training here (appliance/train): the noise is chosen once,
for the steps of all rounds, and each step is charged to the site's own budget before it is taken. FedProx
(Li et al. 2020) adds mu (w - w0) after the noise, so it reads no record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from appliance.core.errors import Diverged
from appliance.core.job import Job
from appliance.train import loop
from appliance.train.engine import Engine, check_engine, engine_for
from appliance.train.job import planned
from appliance.train.plan import Plan
from appliance.train.ranks import SOLO
from appliance.train.run import charger, without_dropout
from appliance.train.settings import Settings
from appliance.train.setup import Setup, set_up
from federated.description import Federation
from federated.layout import Array, Layout, layout_of, parted, vector_sha256
from federated.seat import Learnt

_LARGEST_STEP = 1e3  # of a weight: beyond it, training has diverged


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A base with its adapter, ready: `names` maps the layout's names to the model's parameters.

    `job` pays from its home's ledger and is told each step; only a simulated site has none.
    """

    job: Job | None
    setup: Setup
    plan: Plan
    federation: Federation
    layout: Layout
    names: Mapping[str, Any]
    update: loop.NextUpdate

    def adapter(self) -> Array:
        """The weights as they are now."""
        return np.concatenate(
            [self.names[name].detach().cpu().float().numpy().reshape(-1) for name, _ in self.layout.shapes]
        )

    def load(self, adapter: Array) -> None:
        """Put an adapter's weights into the model."""
        with torch.no_grad():
            for name, values in parted(self.layout, adapter).items():
                self.names[name].copy_(torch.from_numpy(values.copy()))

    def loss(self, adapter: Array) -> float:
        """Mean loss of an adapter on the site's own validation records."""
        began, setup = time.monotonic(), self.setup
        self.load(adapter)
        found = loop.mean_loss(
            setup.model, setup.loss, setup.material.validation, setup.device, setup.settings.micro_tokens
        )
        if self.job is not None:
            self.job.emit("federation", what="judged", seconds=time.monotonic() - began)
        return found

    def train(self, adapter: Array, round_: int) -> Learnt:
        """The steps of one round from `adapter`.

        Raises:
            BudgetSpent: the ledger does not pay the whole round; nothing was trained.
            Diverged: a weight is no number any more.
        """
        began = time.monotonic()
        self.load(adapter)
        training, steps = self.federation.training, self.federation.training.steps
        if self.plan.noise_multiplier is not None and self.job is not None:
            charge = charger(self.job, self.setup, self.plan, f"round {round_}", SOLO)
            for step in range(steps):
                charge((round_ - 1) * steps + step)
        parameters = [part for part in self.setup.model.parameters() if part.requires_grad]
        adam = torch.optim.AdamW(
            parameters, lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=self.plan.weight_decay
        )
        start = [part.detach().clone() for part in parameters]
        for step in range(steps):
            found = self.update()
            place = 0
            for part, first in zip(parameters, start, strict=True):
                piece = found.gradient[place : place + part.numel()].reshape(part.shape).to(part.device)
                part.grad = piece + self.federation.rounds.proximal_mu * (part.detach() - first)
                place += part.numel()
            adam.step()
            if self.job is not None:
                self.job.progress(f"round {round_}", step + 1, steps, loss=found.loss)
        change = self.adapter() - adapter
        if not np.isfinite(change).all() or np.abs(change).max() > _LARGEST_STEP:
            raise Diverged("Training at the site diverged.", "Agree on a lower learning rate.")
        if self.job is not None:
            self.job.emit("federation", what="trained", round=round_, seconds=time.monotonic() - began)
        return Learnt(change=change, units=self.setup.material.units)


def settings_of(federation: Federation) -> Settings:
    """The training settings that the agreement fixes, for the steps of all rounds."""
    model, training = federation.model, federation.training
    return Settings(
        private=training.private,
        epsilon=training.epsilon if training.private else None,
        delta=training.delta if training.private else None,
        rank=model.rank,
        alpha=model.alpha,
        rslora=model.rslora,
        targets=tuple(model.targets),
        layers=model.layers,
        freeze_a=model.freeze_a,
        seed=model.seed,
        steps=training.steps * federation.rounds.count,
        sample_rate=training.sample_rate,
        learning_rate=training.learning_rate,
        schedule="constant",
        max_grad_norm=training.max_grad_norm,
        records_per_unit=training.records_per_unit,
        max_tokens=training.max_tokens,
    )


def trainer(job: Job, federation: Federation, *, dataset: str, base: str, work: Path) -> Trainer:
    """Read the site's records and base once, and fix the plan for all rounds.

    Raises:
        PrivacyRefused, DataRejected, ModelRejected, ConfigWrong: as any training (appliance/train/job.py).
    """
    settings = settings_of(federation)
    setup = set_up(job, {"dataset": dataset, "base": base}, settings, work)
    plan = planned(job, setup)
    return trainer_on(job, setup, plan, federation, checked_engine(setup) if settings.private else None)


def checked_engine(setup: Setup) -> Engine:
    """What computes each unit's gradients, tried on the set-up's records.

    Raises:
        PrivacyRefused: the base mixes records.
    """
    engine = engine_for(setup.model, setup.loss, setup.device)
    without_dropout(setup.model)
    groups = setup.material.groups
    check_engine(engine, [groups[0][0], groups[-1][0]], setup.settings.precision)
    setup.model.train()
    return engine


def trainer_on(
    job: Job | None,
    setup: Setup,
    plan: Plan,
    federation: Federation,
    engine: Engine | None,
    start: int = 0,
) -> Trainer:
    """The trainer of a set-up; several may share a model and its `engine`, None without privacy.

    `start`: how many steps were taken before, which says what batches come next without privacy.
    """
    material, settings = setup.material, setup.settings
    if engine is not None:
        update = loop.private_update(engine, material.groups, plan, settings)
    else:
        update = loop.open_update(setup.model, setup.loss, material.records, settings, start, setup.device)
    layout, names = trained(setup.model)
    return Trainer(
        job=job, setup=setup, plan=plan, federation=federation, layout=layout, names=names, update=update
    )


def trained(model: Any) -> tuple[Layout, dict[str, Any]]:
    """The layout of what a peft model trains, and its parameters by the layout's names."""
    return _arrays(model, trained=True)


def frozen_sha256(model: Any) -> str:
    """Digest of the adapter's arrays that are not trained: all sites must have drawn the same ones."""
    layout, names = _arrays(model, trained=False)
    values = [names[name].detach().cpu().float().numpy().reshape(-1) for name, _ in layout.shapes]
    return vector_sha256(layout, np.concatenate(values))


def _arrays(model: Any, *, trained: bool) -> tuple[Layout, dict[str, Any]]:
    names = {
        name.replace(".default.", "."): part
        for name, part in model.named_parameters()
        if ".lora_" in name and part.requires_grad == trained
    }
    return layout_of({name: tuple(part.shape) for name, part in names.items()}), names
