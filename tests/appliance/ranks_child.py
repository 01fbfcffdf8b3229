"""One process of test_train_ranks.py, started by torchrun: `python ranks_child.py OUT.npz`."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

from appliance.core.offline import stay_offline
from appliance.data import inbox
from appliance.models.importing import DEMO_BASE
from appliance.models.load import encoder_for, load_torch
from appliance.models.task import PROMPT, Task
from appliance.privacy import noise
from appliance.train import loop, losses
from appliance.train.adapt import adapt
from appliance.train.engine import engine_for
from appliance.train.optimiser import Optimiser
from appliance.train.plan import Plan
from appliance.train.ranks import joined, leave
from appliance.train.settings import Settings

UNITS, BOUND = 24, 0.3


def main(target: str) -> None:
    """Three steps without noise, so that sums can be compared exactly; rank 0 writes what it saw."""
    stay_offline()
    torch.set_num_threads(1)
    ranks = joined()
    settings = Settings(max_grad_norm=BOUND, micro_tokens=256, freeze_a=False)
    model, tokenizer = load_torch(DEMO_BASE)
    messages = [record for record, _ in zip(inbox.generate(0), range(UNITS), strict=False)]
    labels = tuple(sorted({message.answer for message in messages}))
    encoder = encoder_for(tokenizer, DEMO_BASE, Task(kind="label", prompt=PROMPT, labels=labels), 512)
    groups = [[encoder.encode(message.text, message.answer)] for message in messages]
    tuned = adapt(model, settings)
    plan = Plan(
        steps=3,
        learning_rate=0.05,
        weight_decay=0.0,
        units=UNITS,
        records=UNITS,
        unit="patient",
        sample_rate=1.0,
        sampling="unit",
        expected_batch=UNITS,
        noise_multiplier=1.0,
        delta=1e-4,
    )
    quiet = noise.discrete_gaussian
    noise.discrete_gaussian = lambda size, sigma, stream: 0 * quiet(size, sigma, stream)
    engine = engine_for(tuned, losses.full_loss, "cpu")
    update = loop.private_update(engine, groups, plan, settings, ranks)
    optimiser = Optimiser(tuned, plan)
    gradients = []
    for step in range(plan.steps):
        found = update()
        gradients.append(found.gradient.numpy())
        optimiser.apply(step, found.gradient)
    weights = torch.cat([part.detach().reshape(-1) for part in engine.parameters]).numpy()
    apart = ranks.summed(np.array(weights)) - ranks.size * weights
    half = loop.private_update(engine, groups, replace(plan, sample_rate=0.5), settings, ranks)
    sizes = [half().units for _ in range(3)]
    found = {"gradients": np.stack(gradients), "weights": weights, "apart": apart}
    found |= {"sizes": np.array(sizes), "drawn": ranks.summed(np.array(sizes))}
    if ranks.first:
        np.savez(target, **found)
    leave()


if __name__ == "__main__":
    main(sys.argv[1])
