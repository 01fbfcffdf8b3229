"""The door's part for simulated federations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.ops import jobs
from tui.session_guard import acts, agree_job

if TYPE_CHECKING:
    from tui.session import Session


@acts("train.start", site=True)
def start_simulation(session: Session, spec: dict[str, Any]) -> str:
    """Start the job that plays a federation; see federated/simulate.py for the spec.

    Raises:
        ConfigWrong: the spec, or an engine that is not installed. NotFound: dataset or base.
        NeedsApproval: with a dataset, two people must agree, for nothing is charged.
    """
    from federated.simulate import wanted

    if spec.get("dataset"):
        found = session.dataset(str(spec["dataset"]))
        spec = spec | {"dataset": found.name, "version": found.version}
    if spec.get("base"):
        spec = spec | {"base": session.base(str(spec["base"])).name}
    asked = wanted(spec)
    agree_job(session, "simulate", spec)
    return jobs.start(
        session.home,
        "simulate",
        spec,
        title=f"simulate {asked.sites} sites",
        who=session.who,
        signer=session.actor.signer,
    )
