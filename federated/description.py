"""federation.toml: what all sites agreed to, signed by the coordinator.

Everything that decides what is trained, on what, how it is averaged and what may be spent stands in this one
file. A site keeps the version it joined with; a later one comes with a round and is taken only if `successor`
allows it, so a coordinator can add or drop sites and end the federation, and nothing else.
The signature (Ed25519, over `cloister/f1/federation`, a zero byte and the file's bytes) stands beside it.
"""

from __future__ import annotations

import hashlib
import tomllib
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from appliance.core.errors import ConfigWrong, TrustRefused
from appliance.security.trust.identity import verify
from federated.aggregate import Rule, least_sites
from federated.faults import faults
from federated.packing import Packing
from federated.secagg.federation import MOST

PURPOSE = b"cloister/f1/federation\x00"
LONGEST = 1 << 20

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=200)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Above0 = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Model(_Part):
    """The base that every site has (`sha256` of its folder) and the adapter put on it.

    `layout` names the arrays that are trained, `frozen` the drawn ones that are not.
    """

    base: Text
    sha256: Digest
    layout: Digest
    rank: Count
    alpha: Count
    rslora: bool = False
    targets: list[Text] = Field(min_length=1, max_length=32)
    layers: int = Field(ge=0, le=1024)
    freeze_a: bool = True
    frozen: Digest
    seed: int = Field(ge=0, lt=2**31)


class Task(_Part):
    """What is learnt: the same kind, prompt and labels at every site (appliance/models/task.py)."""

    kind: Text
    prompt: Annotated[str, StringConstraints(max_length=4000)]
    labels: list[Text] = Field(max_length=1000)


class Rounds(_Part):
    """How rounds run and are averaged.

    `quorum` updates are needed by the deadline; `min_cohort` is the least that a site lets itself be
    averaged with. `clip_bound` limits the norm of a site's change in a round.
    """

    count: Count
    quorum: Count
    min_cohort: int = Field(ge=2, le=10_000)
    deadline_minutes: Above0
    rule: Rule = "mean"
    trim: float = Field(default=0.2, gt=0, lt=0.5)
    secure: bool = False
    packing: Packing = "i8"
    clip_bound: Above0
    weight_clamp: float = Field(default=2.0, ge=1, le=1e6)
    server: Literal["fedavg", "fedadam"] = "fedavg"
    server_learning_rate: Above0 = 1.0
    proximal_mu: float = Field(default=0.0, ge=0, le=1e3)
    products: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.secure and self.rule != "mean":
            raise ValueError(
                "secure aggregation hides single updates, so only the mean can be had: "
                "choose secure, or a robust rule"
            )
        if self.secure and self.min_cohort < 3:
            raise ValueError("with secure aggregation min_cohort is at least 3")
        if self.quorum < max(self.min_cohort, least_sites(self.rule, self.trim)):
            raise ValueError(
                f"quorum is at least min_cohort, and {least_sites(self.rule, self.trim)} for {self.rule}"
            )
        if self.products and (self.rule != "mean" or self.secure or self.server != "fedavg"):
            raise ValueError("products are averaged with the plain mean and fedavg only")
        return self


class Training(_Part):
    """What each site does in a round: `steps` private steps; epsilon at delta is the most for all rounds."""

    private: bool = True
    epsilon: Above0
    delta: float = Field(gt=0, lt=1e-2)
    unit: Text
    steps: Count
    sample_rate: float = Field(gt=0, le=1)
    learning_rate: Above0
    max_grad_norm: Above0
    records_per_unit: Count = 1
    max_tokens: int = Field(default=512, ge=16, le=1_000_000)


class Code(_Part):
    """The code that runs: a site with other versions does not take part."""

    cloister: Text
    flwr: Text
    fab: Digest


class Site(_Part):
    """A member: Ed25519, X25519 and P-384 node key, its certificate's SHA-256, the most units it may claim.

    `state` is "in", "left" (by itself), "dropped" (by the coordinator) or "revoked" (its keys are lost).
    """

    name: Name
    key: Digest
    x25519: Digest
    node: Annotated[str, StringConstraints(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/=]{100,250}$")]
    certificate: Digest
    units: Count
    state: Literal["in", "left", "dropped", "revoked"] = "in"


class Federation(_Part):
    """One version of the agreement."""

    v: Literal[1]
    id: Digest
    version: Count
    name: Name
    coordinator: Name
    coordinator_key: Digest
    gateway: Text
    created: AwareDatetime
    expires: AwareDatetime
    ended: bool = False
    model: Model
    task: Task
    rounds: Rounds
    training: Training
    code: Code
    sites: list[Site] = Field(max_length=10_000)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what in ("name", "key", "x25519", "node", "certificate"):
            held = [getattr(site, what).casefold() for site in self.sites]
            if twice := sorted({one for one in held if held.count(one) > 1}):
                raise ValueError(f"two sites have the same {what}: {twice[0][:64]}")
        if self.rounds.secure and len(self.active()) > MOST:
            raise ValueError(f"secure aggregation is for at most {MOST} sites")
        return self

    def site(self, name: str) -> Site | None:
        """The site of that name."""
        return next((site for site in self.sites if site.name == name), None)

    def active(self) -> list[Site]:
        """The sites that take part, by name."""
        return sorted((site for site in self.sites if site.state == "in"), key=lambda site: site.name)


def written(federation: Federation) -> bytes:
    """The file."""
    return tomli_w.dumps(federation.model_dump(mode="python")).encode()


def digest(content: bytes) -> str:
    """What updates call the federation by: the SHA-256 of the file."""
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=8)  # it is asked for in every round; parsing one of 1,000 sites takes 0.1 s
def parsed(content: bytes) -> Federation:
    """The federation that a file describes; nothing is said about who signed it.

    Raises:
        ConfigWrong: it is none; the message names every field that is wrong.
    """
    try:
        if len(content) > LONGEST:
            raise ValueError("longer than 1 MiB")
        return Federation.model_validate(tomllib.loads(content.decode()))
    except ValidationError as problem:
        raise ConfigWrong(
            f"The federation's description is wrong: {faults(problem)}.", "Ask the coordinator for it again."
        ) from None
    except (ValueError, RecursionError) as problem:
        raise ConfigWrong(
            f"This is no federation.toml: {str(problem)[:100]}.", "Ask the coordinator for it again."
        ) from None


def opened(content: bytes, signature: bytes, key: str) -> Federation:
    """The federation of a file that the holder of `key` (hex) signed.

    Raises:
        TrustRefused: somebody else did, or it was altered. ConfigWrong: it is wrong in itself.
    """
    if not verify(key, signature, PURPOSE + content):
        raise TrustRefused(
            "federation.toml is not signed by the coordinator.", "Ask the coordinator for it again."
        )
    federation = parsed(content)
    if federation.coordinator_key != key:
        raise TrustRefused("federation.toml names another coordinator.", "Ask the coordinator for it again.")
    return federation


def successor(old: Federation, new: Federation, now: datetime) -> None:
    """Check that a site that joined with `old` may go on with `new`.

    Raises:
        TrustRefused: something changed that only a new enrolment may change, or it has expired.
    """
    if now >= new.expires:
        raise TrustRefused(
            f"The federation ended on {new.expires:%Y-%m-%d}.", "Ask the coordinator for a new kit."
        )
    if new is old:
        return
    if new.version < old.version:
        raise TrustRefused(
            f"Version {new.version} of the federation is older than ours, {old.version}.",
            "Look for a replay.",
        )
    if new.version == old.version and new != old:
        raise TrustRefused("There are two different versions with one number.", "Call the coordinator.")
    free = {"version", "sites", "ended", "expires", "gateway"}
    before, after = old.model_dump(exclude=free), new.model_dump(exclude=free)
    if changed := sorted(name for name in before if before[name] != after[name]):
        raise TrustRefused(
            f"The coordinator changed {', '.join(changed)} without asking.",
            "Agree on it, and join with a new kit.",
        )
    for site in old.sites:
        again = new.site(site.name)
        if again is None or again.model_dump(exclude={"state", "units"}) != site.model_dump(
            exclude={"state", "units"}
        ):
            raise TrustRefused(
                f"The keys of site {site.name} were changed.", "Compare its words with that site."
            )
