"""The training job: dataset and base in, trained weights with their privacy statement out.

spec: {"dataset", "version", "base", "settings", "name"}. The plan is fixed at the first
start and kept in the database; checkpoint.safetensors in the job folder is written after every step. Run
again, it goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.core.job import Job
from appliance.data import store
from appliance.data.planted import made_up_units
from appliance.models import registry
from appliance.privacy import ledger, uncharged
from appliance.train.plan import Plan, plan_open, plan_private, warnings
from appliance.train.settings import settings_from


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Train, save what was trained and enter it in the registry.

    Raises:
        PrivacyRefused, BudgetSpent: the privacy asked for cannot be had. ConfigWrong: bad settings.
        DataRejected, ModelRejected: records or a base that cannot be used. Diverged: at the first step.
    """
    from appliance.train.ranks import joined, launch
    from appliance.train.result import release
    from appliance.train.run import train_setup
    from appliance.train.setup import announced, kept_secrets, set_up

    settings, ranks = settings_from(spec.get("settings", {})), joined()
    name = spec.get("name") or f"{settings.method}-{job.id}"
    if ledger.kept_plan(job.home, job.id) is None:
        registry.check_free(job.home, name, job.id)
    if settings.processes > ranks.size:
        kept_secrets(job, settings, store.get(job.home, spec["dataset"], spec.get("version")))
        return launch(job, settings.processes)
    setup = set_up(job, spec, settings, job.folder)
    plan = Plan(**ranks.from_first(planned(job, setup).as_dict() if ranks.first else {}))
    budget = ledger.budget(job.home, setup.dataset.name) if settings.private else None
    warned = warnings(plan, setup.settings, trained=setup.trained, budget=budget)
    job.emit("plan", **announced(job, setup, plan), warnings=warned)
    for note in setup.material.notes:
        job.log(note)
    trained = train_setup(job, setup, plan, folder=job.folder, name=name, ranks=ranks)
    if not ranks.first:
        return {}
    return release(job, setup, plan, trained, name=name)


def planned(job: Job, setup: Any) -> Plan:
    """The plan of this job: made once, then kept, so that a resumed run is the same run.

    Raises:
        ConfigWrong: settings or records are not those it was made for.
        PrivacyRefused: no unit is declared, or see plan_private.
    """
    settings, dataset, material = setup.settings, setup.dataset, setup.material
    bound = {
        "settings": settings.as_dict(),
        "dataset": dataset.sha256,
        "unit": dataset.unit,
        "units": material.units,
        "candidates": len(material.groups),
        "secrets": hashlib.sha256(json.dumps([one.as_dict() for one in setup.secrets]).encode()).hexdigest(),
    }
    old = ledger.kept_plan(job.home, job.id)
    if old is not None:
        if old["bound"] != bound:
            raise ConfigWrong(
                "The settings or the records are not those this run was planned with.", "Start a new run."
            )
        return Plan(**old["plan"])
    if not settings.private:
        plan = plan_open(settings, units=material.units, records=len(material.records))
        uncharged.note(job.home, dataset.name, job=job.id, kind=uncharged.OPEN, who=job.who)
    else:
        uncharged.check_private(job.home, dataset.name)
        unit = store.unit_of(dataset)
        budget = ledger.open_budget(
            job.home,
            dataset.name,
            unit=unit,
            units=material.units,
            delta=settings.delta,
            who=job.who,
        )
        plan = plan_private(
            settings,
            units=material.units,
            candidates=len(material.groups),
            records=len(material.records),
            unit=unit,
            budget=budget,
            made_up=made_up_units(setup.secrets),
        )
    ledger.keep_plan(job.home, job.id, {"plan": plan.as_dict(), "bound": bound})
    return plan
