"""Probes of files: models and data hashed anew, the installed software, what it is made of."""

from __future__ import annotations

from appliance.core.files import sha256_file, sha256_folder
from appliance.data import store
from appliance.data.split import SPLITS
from appliance.models import registry
from appliance.ops.evidence.shape import Found, Look, absent, count, lacks, some, supports
from appliance.security.log.entries import told, untold
from appliance.security.supply import baseline, installed, sbom


def models(look: Look) -> Found:
    """Every model of the registry hashed anew."""
    known = registry.models(look.home)
    if not known:
        return absent("There is no model here.")
    wrong = []
    for model in known:
        digest = sha256_folder if model.path.is_dir() else sha256_file
        if not model.path.exists() or digest(model.path) != model.sha256:
            wrong.append(model.name)
    if wrong:
        return lacks(f"Not the files that were entered: {some(wrong)}.", models=len(known), changed=wrong)
    entered = {entry["target"]: entry["sha256"] for entry in told(look.home, "model.add")}
    other = [
        model.name
        for model in known
        if entered.get(model.name, model.sha256 if untold(look.home, model.created) else "") != model.sha256
    ]
    if other:
        return lacks(f"By the audit log another file was entered: {some(other)}.", models=len(known))
    return supports(
        f"{count(len(known), 'model')} hashed anew (SHA-256): each is the one that was entered.",
        models=len(known),
        changed=[],
    )


def data(look: Look) -> Found:
    """Every split of every data set hashed anew."""
    known = store.datasets(look.home)
    if not known:
        return absent("There is no data set here.")
    wrong = [one.title for one in known if not _same(one)]
    if wrong:
        return lacks(
            f"Not the records that were imported: {some(wrong)}.", datasets=len(known), changed=wrong
        )
    return supports(
        f"{count(len(known), 'data set')} hashed anew (SHA-256): every split is the one that was imported.",
        datasets=len(known),
        changed=[],
    )


def software(look: Look) -> Found:
    """Every installed file hashed anew, and held against what was recorded."""
    place = (look.place or installed.here()).resolve()
    checked = installed.check(place)
    state, more = baseline.compare(look.home, place)
    found = [*checked.findings, *more]
    figures = {
        "files": checked.files,
        "packages": checked.packages,
        "findings": len(found),
        "recorded": state,
    }
    if found:
        named = some([f"{one.path} ({one.what})" for one in found], 3)
        return lacks(f"Installed files are not as installed: {named}. See cloister supply check.", **figures)
    if state == "none":
        return lacks(
            f"{count(checked.files, 'installed file')} as the packages' own lists say, but nothing was"
            " recorded to hold these lists to: cloister supply record, after an installation.",
            **figures,
        )
    return supports(
        f"{count(checked.files, 'installed file')} of {count(checked.packages, 'package')} hashed anew: as"
        " installed, and the packages' own lists as they were recorded"
        + (
            f"; not checked: the source folder of {', '.join(checked.editable)}." if checked.editable else "."
        ),
        **figures,
    )


def materials(look: Look) -> Found:
    """The software bill of materials, made now."""
    place = look.place or installed.here()
    profile = "site" if (place / "torch").is_dir() else "edge"
    parts = sbom.bom(sbom.of_installed(place, {}), profile=profile)["components"]
    unnamed = sorted(str(part["name"]) for part in parts if not part.get("version"))
    if not parts or unnamed:
        return lacks(f"No version is known of {some(unnamed) or 'anything installed'}.")
    return supports(
        f"{count(len(parts), 'component')} with versions in a CycloneDX 1.6 list: cloister supply sbom.",
        components=len(parts),
    )


def _same(dataset: store.Dataset) -> bool:
    files = {split: dataset.folder / f"{split}.jsonl" for split in SPLITS}
    try:
        return bool({split: sha256_file(path) for split, path in files.items()} == dataset.facts["files"])
    except FileNotFoundError:
        return False


PROBES = {"models": models, "data": data, "software": software, "sbom": materials}
