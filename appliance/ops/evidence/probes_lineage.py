"""Probes of origin: which models hold whose records, what was removed, what is written down."""

from __future__ import annotations

from appliance.core.db import reading
from appliance.data import store
from appliance.models import registry
from appliance.ops.evidence.log_entries import entries, told, untold
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports
from appliance.security import keys
from appliance.security.people import mode


def lineage(look: Look) -> Found:
    """Which models hold which data set, through every step."""
    held, lost = holders(look)
    if not held and not lost:
        return absent("There is no data set and no trained model here.")
    if lost:
        return lacks(f"Made from a data set or a model that is not known here any more: {some(lost)}.")
    words = [f"{name} is in {some(models, 4) if models else 'no model'}" for name, models in held.items()]
    return supports(
        f"For each data set it is known which models and files hold it: {'; '.join(words[:4])}"
        + (f"; and {len(words) - 4} more." if len(words) > 4 else "."),
        holders=held,
    )


def erasure(look: Look) -> Found:
    """What was removed, and whether its files are gone."""
    removed = entries(look.home, "model.remove", "docs.remove")
    people = [one.title for one in store.datasets(look.home) if not one.synthetic]
    graves = [path.name for path in look.home.models.glob(".remov*")]
    if graves:
        return lacks(
            f"{count(len(graves), 'removal')} not finished: files of removed models are still there."
        )
    if people:
        return lacks(
            f"This version has no command that removes a data set ({some(people, 3)}); models and documents"
            f" have one, used {len(removed)} times.",
            removals=len(removed),
        )
    if not removed:
        return absent("Nothing was removed here yet, so there is no record of an erasure.")
    return supports(
        f"{count(len(removed), 'removal')} in the log, last on {removed[-1][:10]}; no files of removed models"
        " are left. Backups and old disk blocks are the organisation's.",
        removals=len(removed),
    )


def units(look: Look) -> Found:
    """Whether each data set says whose privacy is protected."""
    known = store.datasets(look.home)
    if not known:
        return absent("There is no data set here.")
    without = [one.title for one in known if one.unit is None and not one.synthetic]
    if without:
        return lacks(f"It is not said whose records these are (import with --unit): {some(without)}.")
    words = [
        f"{one.title}: {sum(one.counts.values()):,} records"
        + (f" of {sum(one.units.values()):,} {one.unit}s" if one.unit else "")
        + (", made up" if one.synthetic else "")
        for one in known
    ]
    return supports(f"{some(words, 4)}.", datasets=len(known))


def identifiers(look: Look) -> Found:
    """How often identifiers are found: this product has no detector of them."""
    if not store.datasets(look.home):
        return absent("Not measured here, and there is no data set here.")
    return lacks(
        "Not measured here: this version has no detector of identifiers. Take them out before the import, and"
        " measure there how many are missed; the officer's own knowledge counts as well."
    )


def documentation(look: Look) -> Found:
    """Whether every trained model is written down from base and data to settings, claim and report."""
    made = [model for model in registry.models(look.home) if model.trained]
    if not made:
        return absent("No model was trained here.")
    known = {one.title for one in store.datasets(look.home)}
    reported, forms = _reported(look), _forms(look)
    gaps = [
        f"{model.name} ({what})"
        for model in made
        for what, there in (
            ("base", bool(model.parent)),
            ("data set", model.dataset in known),
            ("settings", bool((model.facts.get("training") or {}).get("settings"))),
            ("evaluation report", any(name in reported for name in forms[model.name])),
        )
        if not there
    ]
    if gaps:
        return lacks(f"Not written down: {some(gaps)}.")
    return supports(
        f"{count(len(made), 'trained model')}, each with its base, data set and version, settings, privacy"
        " claim and evaluation report.",
        models=len(made),
    )


def evaluated(look: Look) -> Found:
    """Whether every trained model, as its files, has passed its gate on the whole test split at last."""
    forms = [name for names in _forms(look).values() for name in names]
    if not forms:
        return absent("No model was trained here.")
    reported = _reported(look)
    failed = [name for name in forms if not reported.get(name, False)]
    if failed:
        return lacks(f"No newest report on the whole test split that passes its gate: {some(failed)}.")
    return supports(
        f"{count(len(forms), 'form')} of models trained here: each passes its gate on held-out records, by"
        " its newest report.",
        forms=len(forms),
    )


def processing(look: Look) -> Found:
    """What a record of processing needs from this machine."""
    tied = mode.anchor(look.home)
    if tied is None or not tied.site:
        return lacks("This site has no name yet (cloister init), so a record of processing cannot name it.")
    known, models = store.datasets(look.home), registry.models(look.home)
    live = [key for key in keys.list_keys(look.home) if key.state(look.now) == "valid"]
    return supports(
        f"Site {tied.site}: {count(len(known), 'data set')}, {count(len(models), 'model')},"
        f" {count(len(live), 'valid API key')}; who did what with them is in the audit log. Purposes, legal"
        " basis and receivers the organisation writes.",
        datasets=[one.title for one in known],
        models=len(models),
        api_keys=len(live),
    )


def holders(look: Look) -> tuple[dict[str, list[str]], list[str]]:
    """The models that hold each data set (title), in order; and models whose origin is not known any more."""
    models = registry.models(look.home)
    by_name = {model.name: model for model in models}
    held: dict[str, list[str]] = {one.title: [] for one in store.datasets(look.home)}
    lost = []
    for model in models:
        step, seen = model, set[str]()
        while True:
            seen.add(step.name)
            if step.dataset is not None:
                if step.dataset in held:
                    held[step.dataset].append(model.name)
                elif step.trained:
                    lost.append(model.name)
            if step.parent is None or step.parent in seen:
                break
            if step.parent not in by_name:
                lost.append(model.name)
                break
            step = by_name[step.parent]
    return {name: list(dict.fromkeys(found)) for name, found in held.items()}, list(dict.fromkeys(lost))


def _forms(look: Look) -> dict[str, list[str]]:
    """By trained model what is served of it: its GGUF files, or itself while it has none."""
    models = registry.models(look.home)
    files = [model for model in models if model.kind == "gguf"]
    return {
        made.name: [file.name for file in files if file.parent == made.name] or [made.name]
        for made in models
        if made.trained
    }


def _reported(look: Look) -> dict[str, bool]:
    """Whether the newest whole report of each model passed, by the row and by the audit log."""
    with reading(look.home) as link:
        query = "SELECT model, passed, job, created FROM reports WHERE partial = 0 ORDER BY created, rowid"
        rows = link.execute(query).fetchall()
    judged = {
        (entry["target"], entry["job"]): entry["passed"] and not entry["partial"]
        for entry in told(look.home, "model.evaluate")
    }
    brought = {f"bundle-{entry['target'][:12]}" for entry in told(look.home, "bundle.import")}
    return {
        row["model"]: bool(row["passed"])
        and bool(
            judged.get((row["model"], row["job"]), row["job"] in brought or untold(look.home, row["created"]))
        )
        for row in rows
    }


PROBES = {
    "lineage": lineage,
    "erasure": erasure,
    "units": units,
    "identifiers": identifiers,
    "documentation": documentation,
    "evaluation": evaluated,
    "processing": processing,
}
