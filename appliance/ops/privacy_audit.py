"""The privacy audit job: a trained model in, tests A to D and a verdict for every released form out.

spec: {"model": name of an adapter, a tuned model or a GGUF file made from one, "limit": records a
side for the attacks, "canaries": how many test B and C use}. A trained model brings its GGUF files.
Writes home.reports/<job>-privacy.json and an audit line with the verdicts and the hash of that file;
`audits` reads them back. A job run again starts anew and replaces the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong, ProofFailed
from appliance.core.events import now
from appliance.core.files import sha256_file, write_json
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.core.reading import read_bytes
from appliance.data import store
from appliance.data.records import spoken
from appliance.models import registry
from appliance.models.registry import Model
from appliance.privacy.attacks.verdict import PASS, Finding, together
from appliance.security import audit
from appliance.security.people import mode

LIMIT = 1000
_RECITED = 100  # records a side; each costs a pass a token
_SUFFIX = "-privacy.json"
_MECHANISM = 0.3  # of the progress bar


def run(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Audit the model; returns the report (see `_report` for its fields).

    Raises:
        NotFound: the model, its base or its dataset. ConfigWrong: a model that was not trained here.
        ModelRejected, DataRejected: files that were changed. ProofFailed: a GGUF that reads otherwise.
    """
    from appliance.ops.privacy_audit_mechanism import CANARIES, check_mechanism, claim_of, not_private

    limit, canaries = int(spec.get("limit") or LIMIT), int(spec.get("canaries") or CANARIES)
    chain = registry.intact(job.home, spec["model"])
    trained, released = released_forms(job.home, chain)
    claim = claim_of(trained)
    stage = "privacy audit"
    job.progress(stage, 0, 1)
    if claim is None:
        mechanism = not_private(trained.name)
    else:
        mechanism = check_mechanism(
            claim, canaries, lambda share: job.progress(stage, _MECHANISM * share, 1, test="mechanism")
        )
    attacks, sizes = _attack(job, trained, released, limit, claim)
    report = _report(job, chain[0], trained, released, [*mechanism, *attacks], sizes)
    write_json(job.home.reports / f"{job.id}{_SUFFIX}", report)
    _record(job, report)
    return report


def released_forms(home: Home, chain: Sequence[Model]) -> tuple[Model, list[Model]]:
    """The trained model of a lineage, and the forms of it to attack: the one asked for, and its files.

    Raises:
        ConfigWrong: nothing in it was trained here.
    """
    trained = next((model for model in chain if model.trained), None)
    if trained is None or trained.dataset is None:
        raise ConfigWrong(
            f"{chain[0].name} was not trained here, so there is nothing to audit.",
            "Name an adapter or a GGUF file made from one: `cloister model list`.",
        )
    if not chain[0].trained:
        return trained, [chain[0]]
    files = [m for m in registry.models(home) if m.kind == "gguf" and m.parent == trained.name]
    return trained, [trained, *files]


def audits(home: Home, model: str | None = None) -> list[dict[str, Any]]:
    """Audits that this site has made, newest first: job, created, model, verdict, verdicts, path.

    With `model`, those that say something of it, each with its own `verdict`.
    """
    found = []
    for path in home.reports.glob(f"*{_SUFFIX}"):
        report = json.loads(read_bytes(path))
        if model is not None and model not in report["verdicts"]:
            continue
        told = {key: report[key] for key in ("job", "created", "model", "verdict", "verdicts")}
        if model is not None:
            told["verdict"] = report["verdicts"][model]
        found.append(told | {"path": str(path)})
    return sorted(found, key=lambda one: str(one["created"]), reverse=True)


def _attack(
    job: Job, trained: Model, released: Sequence[Model], limit: int, claim: Any
) -> tuple[list[Finding], dict[str, int]]:
    from appliance.evaluate.job import open_scorer, task_for
    from appliance.evaluate.score import tokenise
    from appliance.ops.privacy_audit_attacks import Attacked, attack_findings, blind_finding
    from appliance.ops.privacy_audit_exposure import codes_of, exposure_finding, read_exposures
    from appliance.ops.privacy_audit_reading import long_enough, read_rows
    from appliance.ops.privacy_audit_sides import sides

    dataset = store.get(job.home, trained.dataset or "")
    chosen = sides(dataset, limit)
    records = [*chosen.members, *chosen.others]
    count = len(chosen.members)
    texts = [f"{spoken(one.text)} {one.answer}" for one in records]
    blind = blind_finding(texts[:count], texts[count:], dataset.title)
    sizes = {"members": count, "others": len(chosen.others), "near": chosen.near}
    findings = [blind]
    if not chosen.members or not chosen.others:
        return findings, sizes
    lineage = registry.intact(job.home, trained.name)
    base = next(model for model in lineage if model.kind == "base")
    codes = codes_of(trained)
    told = _teller(job, (len(records) + len(codes)) * (len(released) + 1))
    task = task_for(lineage, dataset)
    readings, tokens, exposed = {}, {}, {}
    longest = (trained.facts.get("training") or {}).get("settings", {}).get("max_tokens")
    for number, model in enumerate([base, *released]):
        scorer = open_scorer(registry.intact(job.home, model.name))
        try:
            encoder = scorer.encoder(task)
            rows = tokenise(replace(encoder, limit=min(encoder.limit, longest or encoder.limit)), records)
            whole = [at for at, row in enumerate(rows) if long_enough(row)]
            recite = [at for at in whole if at < count][:_RECITED]
            recite += [at for at in whole if at >= count][:_RECITED]
            tokens[model.name] = [row.tokens for row in rows]
            before = number * (len(records) + len(codes))
            readings[model.name] = read_rows(scorer, rows, recite, told(before))
            if model is not base:
                exposed[model.name] = read_exposures(scorer, task, codes, told(before + len(records)))
        finally:
            scorer.close()
    if any(tokens[model.name] != tokens[released[0].name] for model in released):
        raise ProofFailed(
            f"A GGUF file of {trained.name} does not read text as the model it came from.",
            "Quantise it again with `cloister quantize`.",
        )
    for model in released:
        attacked = Attacked(
            name=model.name,
            model=readings[model.name],
            base=readings[base.name],
            members=count,
            claim=None if claim is None else (claim.stated, claim.delta),
        )
        findings += attack_findings(attacked, blind)
        findings.append(exposure_finding(model.name, exposed[model.name]))
    return findings, sizes


def _teller(job: Job, total: int) -> Callable[[int], Callable[[int], None]]:
    def after(before: int) -> Callable[[int], None]:
        return lambda rows: job.progress(
            "privacy audit", _MECHANISM + (1 - _MECHANISM) * (before + rows) / total, 1, test="attacks"
        )

    return after


def _report(
    job: Job,
    asked: Model,
    trained: Model,
    released: Sequence[Model],
    findings: Sequence[Finding],
    sizes: dict[str, int],
) -> dict[str, Any]:
    """`findings` in order of test; `verdicts` by released form; `tests` A to D over all of them."""
    names = {model.name for model in released}
    shared = [finding.verdict for finding in findings if finding.on not in names or finding.test != "D"]
    private = trained.facts.get("privacy") is not None
    verdicts = {}
    for name in (model.name for model in released):
        own = [one.verdict for one in findings if one.test == "D" and one.on == name]
        verdicts[name] = _capped(together([*shared, *own]), private)
    return {
        "format": 1,
        "job": job.id,
        "created": now(),
        "people": mode.statement(job.home),
        "model": asked.name,
        "trained": trained.name,
        "dataset": trained.dataset,
        "synthetic": bool(trained.facts.get("synthetic")),
        "private": private,
        "verdict": _capped(together(one.verdict for one in findings), private),
        "verdicts": verdicts,
        "tests": {test: together(one.verdict for one in findings if one.test == test) for test in "ABCD"},
        "findings": [finding.as_dict() for finding in findings],
        "sizes": sizes,
        "limits": _limits(private),
        "json": str(job.home.reports / f"{job.id}{_SUFFIX}"),
    }


def _capped(verdict: str, private: bool) -> str:
    """A model without privacy has no claim that a test could bear out."""
    return together([verdict, "INCONCLUSIVE"]) if verdict == PASS and not private else verdict


def _limits(private: bool) -> list[str]:
    told = [
        "Not detected is not private: PASS means that these attacks, at these sizes, found nothing. What"
        " protects people is the noise that was counted, not this audit.",
        "A reads the run's own record and measures the code that is installed now. B and C run that code on"
        " canaries alone: no record takes part and nothing is charged; they test the mechanism and its"
        " settings, not the released weights.",
        "D attacks the released files with losses, greedy decoding and a few samples, one record a unit, and"
        " with secrets where the run planted some. Other attacks may find more.",
        "The limits of D (AUC 0.55, 3 % found at 1 % false alarms) are chosen by judgement; epsilon is not.",
    ]
    if not private:
        told.insert(1, "This model was trained without privacy: it can fail this audit, and cannot pass it.")
    return told


def _record(job: Job, report: dict[str, Any]) -> None:
    with transaction(job.home) as link:
        audit.record(
            link,
            who=job.who,
            what="model.audit-privacy",
            target=report["model"],
            verdict=report["verdict"],
            verdicts=report["verdicts"],
            tests=report["tests"],
            sha256=sha256_file(job.home.reports / f"{job.id}{_SUFFIX}"),
            job=job.id,
        )
