"""Probes of origin: which models hold whose records, what was removed, what is written down."""

from __future__ import annotations

from appliance.data import store
from appliance.models import registry
from appliance.models.verdicts import verdicts
from appliance.ops import data_removal
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports
from appliance.ops.holders import holders
from appliance.security import keys
from appliance.security.log.entries import entries, told
from appliance.security.people import mode


def lineage(look: Look) -> Found:
    """Which models hold which data set, through every step."""
    held, lost = holders(look.home)
    if not held and not lost:
        return absent("There is no data set and no trained model here.")
    if lost:
        return lacks(f"Made from a data set or a model that is not known here any more: {some(lost)}.")
    gone = {one.title for one in store.removed(look.home)}
    words = [
        f"{name}{' (removed)' if name in gone else ''} is in {some(models, 4) if models else 'no model'}"
        for name, models in held.items()
    ]
    return supports(
        f"For each data set it is known which models and files hold it: {'; '.join(words[:4])}"
        + (f"; and {len(words) - 4} more." if len(words) > 4 else "."),
        holders=held,
    )


def erasure(look: Look) -> Found:
    """What was removed, and whether its files are gone."""
    removed = entries(look.home, "model.remove", "docs.remove", data_removal.ACTION)
    graves = [path.name for path in look.home.models.glob(".remov*")]
    graves += [one.title for one in data_removal.left(look.home)]
    if graves:
        return lacks(
            f"{count(len(graves), 'removal')} not finished: files of what was removed are still there."
        )
    if back := _back(look):
        return lacks(f"Removed by the audit log, and still here: {some(back)}.")
    if not removed:
        return absent("Nothing was removed here yet, so there is no record of an erasure.")
    data = [one for one in store.removed(look.home) if not one.synthetic]
    held, _ = holders(look.home)
    known = list(dict.fromkeys(name for one in data for name in held[one.title]))
    if bare := [name for name in known if data_removal.bare(look.home, name)]:
        return lacks(
            f"Removed records are still in models that learnt from them without privacy: {some(bare)}.",
            removals=len(removed),
        )
    private = (
        f" What was learnt under privacy from removed records is still in {some(known)}." if known else ""
    )
    return supports(
        f"{count(len(removed), 'removal')} in the log, last on {removed[-1][:10]}; no files of what was"
        f" removed are left.{private} Backups and old disk blocks are the organisation's.",
        removals=len(removed),
    )


def _back(look: Look) -> list[str]:
    """Data sets that are here though the log says that they were removed; a number is never given again."""
    here = {one.title for one in store.datasets(look.home)}
    return sorted(here & {entry["target"] for entry in told(look.home, data_removal.ACTION)})


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
    known = {one.title for one in (*store.datasets(look.home), *store.removed(look.home))}
    reported, forms = verdicts(look.home), _forms(look)
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
    reported = verdicts(look.home)
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


def _forms(look: Look) -> dict[str, list[str]]:
    """By trained model what is served of it: its GGUF files, or itself while it has none."""
    models = registry.models(look.home)
    files = [model for model in models if model.kind == "gguf"]
    return {
        made.name: [file.name for file in files if file.parent == made.name] or [made.name]
        for made in models
        if made.trained
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
