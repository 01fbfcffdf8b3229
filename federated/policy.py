"""policy.toml: what a site lets be done with its records, whatever a coordinator asks for.

It lies at the site, is written by the site, and nothing that comes over the wire can change it. What is
refused leaves the site as a code, never as text.
"""

from __future__ import annotations

import tomllib
from datetime import datetime, time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.core.errors import ConfigWrong
from federated.description import Federation
from federated.faults import faults

Reason = Literal[
    "ended", "paused", "hours", "rounds", "cohort", "not-private", "epsilon", "delta", "unit", "base",
    "versions", "plain", "vetoed", "task", "again", "adapter", "agreement", "budget", "worse", "disk",
    "failed",
]  # fmt: skip

WORDS: dict[Reason, str] = {
    "ended": "the federation has ended",
    "paused": "the site has paused",
    "hours": "it is outside the hours that the site allows",
    "rounds": "the site has taken part in all the rounds it allows",
    "cohort": "the site would be averaged with fewer sites than it allows",
    "not-private": "the site trains with differential privacy only",
    "epsilon": "it asks for more epsilon than the site allows",
    "delta": "it asks for a larger delta than the site allows",
    "unit": "it protects another unit than the site's dataset has",
    "base": "the site's base is another one",
    "versions": "the site runs other versions",
    "plain": "the site takes part in secure aggregation only",
    "vetoed": "a person at the site refused the round",
    "task": "the site's dataset has another task or other labels",
    "again": "the site has answered this round already, from another adapter",
    "adapter": "the adapter that arrived is not the one that the round names",
    "agreement": "the coordinator changed what only a new enrolment may change",
    "budget": "the site's privacy budget does not pay the round",
    "worse": "the round's adapter is worse on the site's own records than the site allows",
    "disk": "the disk of the site is full",
    "failed": "training failed at the site; its own log says why",
}


class Policy(BaseModel):
    """A site's own rules. `from_time` and `to_time` bound the hours (UTC); equal ones mean always.

    `worst_loss` is the loss on the site's own validation records above which it refuses a round's adapter;
    with `tell_loss` the coordinator is told that loss, which is not protected by differential privacy.
    `vetoed` are rounds that a person here refused; with `model_vetoed` it is all of them from now on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    max_rounds: int = Field(default=1000, ge=1)
    min_cohort: int = Field(default=3, ge=2)
    private_only: bool = True
    secure_only: bool = False
    from_time: time = time(0)
    to_time: time = time(0)
    worst_loss: float | None = Field(default=None, gt=0)
    paused: bool = False
    vetoed: list[int] = []
    model_vetoed: bool = False
    tell_loss: bool = True


def policy_of(content: bytes) -> Policy:
    """The policy that a file holds.

    Raises:
        ConfigWrong: a field is wrong; the message names it.
    """
    try:
        return Policy.model_validate(tomllib.loads(content.decode()))
    except ValidationError as problem:
        raise ConfigWrong(f"policy.toml: {faults(problem)}.", "Mend the file.") from None
    except ValueError as problem:
        raise ConfigWrong(f"policy.toml cannot be read: {str(problem)[:100]}.", "Mend the file.") from None


def objections(
    policy: Policy, federation: Federation, *, number: int, cohort: int, done: int, unit: str, now: datetime
) -> list[Reason]:
    """Why the site does not take part in round `number`; empty where it does.

    `cohort` is how many sites will be averaged, `done` in how many rounds the site took part, `unit` what its
    dataset protects.
    """
    rounds, training = federation.rounds, federation.training
    rules: list[tuple[Reason, bool]] = [
        ("ended", federation.ended or now >= federation.expires),
        ("paused", policy.paused),
        ("vetoed", policy.model_vetoed or number in policy.vetoed),
        ("hours", not _within(now.timetz().replace(tzinfo=None), policy.from_time, policy.to_time)),
        ("rounds", done >= policy.max_rounds),
        ("cohort", cohort < max(policy.min_cohort, rounds.min_cohort)),
        ("not-private", policy.private_only and not training.private),
        ("plain", policy.secure_only and not rounds.secure),
        ("epsilon", training.private and training.epsilon > policy.epsilon),
        ("delta", training.private and training.delta > policy.delta),
        ("unit", training.unit != unit),
    ]
    return [reason for reason, objected in rules if objected]


def _within(now: time, start: time, end: time) -> bool:
    if start == end:
        return True
    return start <= now < end if start < end else now >= start or now < end
