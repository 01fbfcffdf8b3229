"""The training job: dataset and base in, adapter with its privacy statement out.

spec: {"dataset", "version", "base", "settings", "name"}. Files in the job folder: plan.json (fixed at
the first start), checkpoint.safetensors (after every step). Run again, it goes on from there.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.core.errors import BudgetSpent, ConfigWrong, PrivacyRefused
from appliance.core.files import need_room, replacing_folder, sha256_folder, write_json
from appliance.core.job import Job
from appliance.data import store
from appliance.data.records import Record
from appliance.models import registry
from appliance.models.encoding import Encoded, Encoder
from appliance.models.load import chat_template, device, load_torch
from appliance.models.task import Task
from appliance.privacy import ledger
from appliance.privacy.accountant import epsilon
from appliance.train.plan import Plan, plan_open, plan_private, statement
from appliance.train.settings import Settings, settings_from

_VALIDATION_RECORDS = 200
_EPSILON_MARKS = 5
_PEOPLE = 10


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Train an adapter and enter it in the registry.

    Raises:
        PrivacyRefused, BudgetSpent: the privacy asked for cannot be had. ConfigWrong: bad settings.
    """
    settings = settings_from(spec.get("settings", {}))
    dataset = store.get(job.home, spec["dataset"], spec.get("version"))
    base = registry.intact(job.home, spec["base"])[0]
    if base.kind != "base":
        raise ConfigWrong(f"{base.name} is not a base model.", "Choose one with `cloister model list`.")
    task = Task(kind=dataset.task, prompt=dataset.prompt, labels=dataset.labels)
    name = spec.get("name") or f"lora-{job.id}"
    registry.check_free(job.home, name, job.id)
    need_room(job.home.path, 50_000_000)

    job.progress("load", 0, 1)
    model, tokenizer = load_torch(base.path)
    encoder = encoder_for(tokenizer, base.path, task, min(settings.max_tokens, context_of(model)))
    training = store.read(dataset, "train")
    validation = store.read(dataset, "val")[:_VALIDATION_RECORDS]
    encoded = [encoder.encode(record.text, record.answer) for record in training]
    if settings.private and dataset.labels and not dataset.facts.get("labels_declared"):
        _check_labels(training)
    units = list(by_unit(training, encoded).values())
    groups = sampled_together(units, settings)

    plan = _plan(job, settings, dataset, units=len(units), candidates=len(groups), records=len(training))
    job.emit("plan", **_announced(plan, dataset))
    history, done = _train(
        job,
        model,
        encoder,
        groups=groups,
        records=encoded,
        validation=[encoder.encode(record.text, record.answer) for record in validation],
        plan=plan,
        settings=settings,
        budget=dataset.name,
        name=name,
    )
    privacy = _privacy(job, plan, settings, dataset, done)
    folder = job.home.models / name
    facts = {
        "task": task.as_dict(),
        "privacy": privacy,
        "training": {
            "settings": settings.as_dict(),
            "plan": plan.as_dict(),
            "steps_done": done,
            "history": history,
        },
        "synthetic": dataset.synthetic,
    }
    entry = registry.add(
        job.home,
        registry.Model(
            name=name,
            kind="adapter",
            path=folder,
            sha256=sha256_folder(folder),
            size=sum(file.stat().st_size for file in folder.iterdir()),
            job=job.id,
            parent=base.name,
            dataset=f"{dataset.name}@{dataset.version}",
            facts=facts,
        ),
        who=job.who,
    )
    return {"name": entry.name, "privacy": privacy, "steps": done, "base": base.name}


def encoder_for(tokenizer: Any, folder: Path, task: Task, limit: int) -> Encoder:
    """The encoder of a transformers tokenizer."""
    return Encoder(
        tokenize=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        template=chat_template(folder),
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
        eos=tokenizer.eos_token_id,
        task=task,
        limit=limit,
    )


def context_of(model: Any) -> int:
    """The most positions the base was made for."""
    return int(getattr(model.config, "max_position_embeddings", 2048))


def by_unit(records: list[Record], encoded: list[Encoded]) -> dict[str, list[Encoded]]:
    """Encoded records by unit; a record without one is a unit of its own (settled at import)."""
    units: dict[str, list[Encoded]] = {}
    for record, tokens in zip(records, encoded, strict=True):
        units.setdefault(record.unit if record.unit is not None else f"record:{record.id}", []).append(tokens)
    return units


def _check_labels(training: list[Record]) -> None:
    """Check that no label read from the records could point at a few people: names become the model's.

    Raises:
        PrivacyRefused: some labels belong to fewer than _PEOPLE units.
    """
    holders: dict[str, set[str]] = {}
    for record in training:
        holders.setdefault(record.answer, set()).add(record.unit or record.id)
    few = sum(len(units) < _PEOPLE for units in holders.values())
    if few:
        raise PrivacyRefused(
            f"{few} labels belong to fewer than {_PEOPLE} people each, and the names of labels become part of"
            " the model.",
            "Import the records again and say which labels there are: --labels billing,refill,...",
        )


def sampled_together(units: list[list[Encoded]], settings: Settings) -> list[list[Encoded]]:
    """What enters a step together: a unit, or each of the first `records_per_unit` records of one."""
    if settings.sampling == "unit":
        return units
    return [[record] for unit in units for record in unit[: settings.records_per_unit]]


def _plan(
    job: Job, settings: Settings, dataset: store.Dataset, *, units: int, candidates: int, records: int
) -> Plan:
    """The plan of this job: made once, then kept, so that a resumed run is the same run."""
    kept = job.folder / "plan.json"
    bound = {
        "settings": settings.as_dict(),
        "dataset": dataset.sha256,
        "unit": dataset.unit,
        "units": units,
        "candidates": candidates,
    }
    if kept.exists():
        old = json.loads(kept.read_bytes())
        if old["bound"] != bound:
            raise ConfigWrong(
                "The settings or the records are not those this run was planned with.", "Start a new run."
            )
        return Plan(**old["plan"])
    if not settings.private:
        plan = plan_open(settings, units=units, records=records)
    else:
        if dataset.unit is None:
            raise PrivacyRefused(
                f"{dataset.name} does not say whose privacy is protected.",
                "Import it again with --unit COLUMN (the patient), or --unit-is-record for single records.",
            )
        budget = ledger.open_budget(
            job.home, dataset.name, unit=dataset.unit, units=units, delta=settings.delta, who=job.who
        )
        plan = plan_private(
            settings, units=units, candidates=candidates, records=records, unit=dataset.unit, budget=budget
        )
    write_json(kept, {"plan": plan.as_dict(), "bound": bound})
    return plan


def _announced(plan: Plan, dataset: store.Dataset) -> dict[str, Any]:
    return {
        **plan.as_dict(),
        "noise_on_mean": plan.noise_on_mean,
        "dataset": dataset.name,
        "version": dataset.version,
        "synthetic": dataset.synthetic,
    }


def _train(
    job: Job,
    model: Any,
    encoder: Encoder,
    *,
    groups: list[list[Encoded]],
    records: list[Encoded],
    validation: list[Encoded],
    plan: Plan,
    settings: Settings,
    budget: str,
    name: str,
) -> tuple[list[dict[str, Any]], int]:
    """Train and save the adapter folder; returns the step history and the number of steps taken."""
    from appliance.train import loop
    from appliance.train.adapt import add_lora
    from appliance.train.engine import check_engine, engine_for
    from appliance.train.losses import full_loss, label_loss

    where = device()
    tuned = add_lora(model, settings).train()
    labels = encoder.task.kind == "label"
    loss = label_loss(encoder.trie(), model.config.vocab_size) if labels else full_loss
    optimiser = loop.Optimiser(tuned, plan)
    checkpoint = job.folder / "checkpoint.safetensors"
    start, history = optimiser.load(checkpoint) if checkpoint.exists() else (0, [])
    if start:
        job.log(f"Goes on after step {start}.")
    engine = engine_for(tuned, loss, where) if settings.private else None
    if engine is None:
        update = loop.open_update(tuned, loss, records, settings, start, where)
        charge = None
    else:
        check_engine(engine, [groups[0][0], groups[-1][0]])
        update = loop.private_update(engine, groups, plan, settings)
        purse = ledger.Purse(
            job.home, budget, job=job.id, run=plan.charged(plan.steps), limit=settings.epsilon or math.inf
        )

        def charge(step: int) -> None:
            purse.charge(1, step=step + 1, model=name)

    marks = _epsilon_marks(job, plan, budget, start)
    began = time.monotonic()

    def tell(found: loop.StepFacts) -> None:
        facts: dict[str, Any] = asdict(found)
        facts["epsilon"] = next((cost for at, cost in marks if found.step <= at), None)
        if found.step % max(1, plan.steps // 5) == 0 or found.step == plan.steps:
            facts["validation_loss"] = loop.mean_loss(tuned, loss, validation, where, settings.micro_tokens)
        facts["tokens_per_second"] = found.tokens / found.seconds if found.seconds else 0.0
        facts["loss"] = None if math.isnan(found.loss) else found.loss
        left = (time.monotonic() - began) / (found.step - start) * (plan.steps - found.step)
        history.append(facts)
        job.progress(
            "train", found.step, plan.steps, left=left, **{k: v for k, v in facts.items() if k != "step"}
        )

    done = loop.train(
        update,
        optimiser,
        start=start,
        steps=plan.steps,
        charge=charge,
        saved=lambda step: optimiser.save(checkpoint, step, history),
        tell=tell,
    )
    if done == 0:
        raise BudgetSpent(
            f"The privacy budget of {budget} does not allow a single step.", "See `cloister budget show`."
        )
    if done < plan.steps:
        job.log(f"Epsilon is spent: stopped after {done} of {plan.steps} steps; what was trained is kept.")
    if engine is not None:
        engine.close()
    registry.check_free(job.home, name, job.id)  # another run may have taken it meanwhile
    with replacing_folder(job.home.models / name) as draft:
        tuned.save_pretrained(draft, safe_serialization=True)
        (draft / "README.md").unlink(missing_ok=True)
        config = json.loads((draft / "adapter_config.json").read_bytes())
        config["base_model_name_or_path"] = None  # a path of this machine otherwise
        write_json(draft / "adapter_config.json", config)
    return history, done


def _epsilon_marks(job: Job, plan: Plan, dataset: str, start: int) -> list[tuple[int, float]]:
    """(step, epsilon of the dataset's history at that step), rising; shown as "at most" in between.

    A run that goes on after `start` has been charged for steps that it takes again.
    """
    if plan.noise_multiplier is None or plan.delta is None:
        return []
    found = ledger.budget(job.home, dataset)
    history = list(found.history) if found else []
    places = sorted(
        {max(start + 1, plan.steps * mark // _EPSILON_MARKS) for mark in range(1, _EPSILON_MARKS + 1)}
    )
    return [(step, epsilon([*history, plan.charged(step - start)], plan.delta)) for step in places]


def _privacy(
    job: Job, plan: Plan, settings: Settings, dataset: store.Dataset, done: int
) -> dict[str, Any] | None:
    """The claim of the finished run, from what the ledger really holds."""
    if plan.noise_multiplier is None:
        return None
    found = ledger.budget(job.home, dataset.name)
    if found is None:
        raise PrivacyRefused("The ledger has no budget for this dataset.", "Restore the site's database.")
    charged = sum(event["steps"] for event in ledger.events(job.home, dataset.name) if event["job"] == job.id)
    if charged < done:
        raise PrivacyRefused(
            f"{done} steps were taken and {charged} are in the ledger.",
            "The job's files were changed; start anew.",
        )
    told = statement(plan, settings)
    if dataset.labels and not dataset.facts.get("labels_declared"):
        told["not_protected"].append("the names of the labels, which were read from the records")
    return {
        **told,
        "epsilon": epsilon([plan.charged(charged)], found.delta),
        "epsilon_dataset": found.spent(),
        "epsilon_limit": found.epsilon_limit,
        "steps_charged": charged,
        "steps_released": done,
    }
