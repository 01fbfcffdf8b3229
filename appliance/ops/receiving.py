"""Makes something of a bundle that came in: a registry entry, a newer trust document, a wheelhouse.

The bundle was verified and lies under the hash of its manifest. A GGUF file is then checked like any that
someone else made: a trusted signer can be wrong, too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import DataRejected, ModelRejected
from appliance.core.events import now
from appliance.core.files import replacing_folder, sha256_file
from appliance.core.home import Home
from appliance.core.reading import copy_plain, read_bytes
from appliance.core.sealing import sealed_home
from appliance.models import importing as models
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.safetensors import read_header
from appliance.models.verdicts import MEASURED, report_of
from appliance.security import audit
from appliance.security.bundle import importing
from appliance.security.bundle.importing import Imported
from appliance.security.bundle.reading import Opened
from appliance.security.people import guard
from appliance.security.supply import wheelhouse
from appliance.security.trust import store
from appliance.security.trust.identity import Identity

REPORT = "reports/evaluation.json"
"""Where a bundle has its evaluation report."""

Checker = Callable[[Path], dict[str, Any]]
"""Checks a GGUF file that someone else made and returns its facts; quantize.foreign.check_gguf is one."""


def receive(
    home: Home,
    path: Path,
    *,
    identity: Identity,
    check_gguf: Checker,
    name: str | None = None,
    who: str,
) -> tuple[Opened, str]:
    """Import the bundle file `path`; what it says, and the name of what was made of it.

    Cut off at any moment it can be done again: a bundle that is in, but of which nothing was made, goes on
    from there.

    Raises:
        BundleRefused: with the exact reason. ModelRejected: a file in it is unsound; the bundle stays,
        and nothing is entered. ConfigWrong: the name is taken (give another). NoRoom, Busy.
    """
    importing.sweep(home, who=who)
    brought = importing.import_bundle(home, path, identity=identity, who=who)
    facts, folder = brought.opened.manifest.facts, brought.folder
    if not brought.fresh and (old := _made(home, brought.opened.digest)):
        importing.entered(home, brought.opened.digest, old, who=who)
        return brought.opened, old
    match facts.kind:
        case "model":
            made = _model(home, brought, name or facts.name, check_gguf, who)
        case "adapter":
            made = _adapter(home, brought, name or facts.name, who)
        case "trust":
            document = read_bytes(_only(folder, ".json"))
            made = f"trust version {store.accept(home, document, bundled=True, who=who).version}"
        case "wheelhouse":
            made = _wheelhouse(home, brought)
        case _:
            made = brought.opened.digest
    importing.entered(home, brought.opened.digest, made, who=who)
    return brought.opened, made


def _model(home: Home, brought: Imported, name: str, check_gguf: Checker, who: str) -> str:
    models.check_model_name(name)
    source = _only(brought.folder, ".gguf")
    told = _told(brought.opened)
    place = models.gguf_place(home, name)
    if place.exists() and place.samefile(source):  # left by a crash; renaming a file onto itself does nothing
        place.unlink()

    signed = _signed(brought, source)

    def check(draft: Path) -> dict[str, Any]:
        _check_signed(draft, signed, source.name)
        return {**check_gguf(draft), **told}

    # A sealed file is bound to its place, so it is read and sealed anew there.
    copy = copy_plain if sealed_home(home.path) else os.link
    model = models.import_gguf(home, source, name, check=check, copy=copy, who=who, right=importing.RIGHT)
    _keep_report(home, brought, model, who)
    source.unlink(missing_ok=True)  # the registry has it, under the same hash; two names would hinder exports
    return model.name


def _wheelhouse(home: Home, brought: Imported) -> str:
    """A folder to install from, checked against its own checksums and lock; the bundle keeps its manifest.

    Raises:
        ModelRejected: the bundle is whole and its wheelhouse is not; or something else lies in its place.
    """
    name = f"{check_wheelhouse_name(brought.opened.manifest.facts.name)}-{brought.opened.digest[:8]}"
    place = home.wheelhouses / name
    signed = {one.path: one.sha256 for one in brought.opened.manifest.files}
    sources = [home.bundles / brought.opened.digest / one.path for one in brought.opened.manifest.files]
    if not place.is_dir():
        try:
            with replacing_folder(place) as draft:
                for source in sources:
                    target = draft / source.relative_to(brought.folder)
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                    copy_plain(source, target)
                wheelhouse.settle(draft)
        except DataRejected as problem:
            raise ModelRejected(problem.message, "Do not install from it; ask its maker.") from problem
    # The name has 32 bits of the hash: whoever may sign can make another bundle with the same.
    if {one.name: one.sha256 for one in wheelhouse.files(place)} != signed:
        raise ModelRejected(
            f"What lies in {place} is not what this bundle holds.",
            "Remove that folder, then import the bundle again.",
        )
    for source in sources:
        source.unlink(missing_ok=True)  # they are in the wheelhouse, under the hashes of the same manifest
    return name


def check_wheelhouse_name(name: str) -> str:
    """`name` itself, where it can name a folder. Raises ModelRejected."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ModelRejected("The bundle's wheelhouse has no plain name.", "Ask its maker.")
    return name


def _adapter(home: Home, brought: Imported, name: str, who: str) -> str:
    """An adapter for a base that is here, by hash."""
    models.check_model_name(name)
    digest = brought.opened.manifest.facts.base_model_digest
    base = next((one for one in registry.models(home) if one.whole and one.sha256 == digest), None)
    if base is None:
        raise ModelRejected(
            f"The base that {brought.opened.manifest.facts.name} belongs to is not here.",
            "Import that base (`cloister model import`), then the bundle again.",
        )
    files = [one for one in brought.folder.iterdir() if one.name.startswith("adapter_")]
    for file in files:
        _check_signed(file, _signed(brought, file), file.name)
        if file.suffix == ".safetensors":
            read_header(file)
    try:
        config = json.loads(read_bytes(brought.folder / "adapter_config.json"))
    except (FileNotFoundError, ValueError, RecursionError):
        raise ModelRejected(
            "The adapter has no adapter_config.json that can be read.", "Ask its maker."
        ) from None
    if not any(file.name == "adapter_model.safetensors" for file in files):
        raise ModelRejected("The adapter has no adapter_model.safetensors.", "Ask its maker.")
    if not isinstance(config, dict) or config.get("auto_mapping") is not None:
        raise ModelRejected("The adapter brings code of its own.", "Ask its maker for a plain LoRA adapter.")
    model = models.enter_adapter(
        home, files, name, base=base, facts=_told(brought.opened), who=who, right=importing.RIGHT
    )
    return model.name


def _signed(brought: Imported, file: Path) -> str:
    """The SHA-256 that the signed manifest has of a file of the bundle."""
    name = file.relative_to(brought.folder).as_posix()
    found = next((one.sha256 for one in brought.opened.manifest.files if one.path == name), "")
    if not found:
        raise ModelRejected(f"{file.name} is not one of the bundle's files.", "Ask its maker for it again.")
    return found


def _check_signed(file: Path, signed: str, name: str) -> None:
    """Check a file that lay on the disk for a while, as after an import that was cut off.

    Raises:
        ModelRejected: it is not what was signed.
    """
    if sha256_file(file) != signed:
        raise ModelRejected(
            f"{name} has changed since the bundle came in: it is not what was signed.",
            "Ask its maker for a new bundle; somebody changes files on this machine.",
        )


def _made(home: Home, digest: str) -> str | None:
    """The entry that was made of a bundle before a crash, if it got that far."""
    for model in registry.models(home):
        if (model.facts.get("bundle") or {}).get("digest") == digest:
            return model.name
    return None


def _told(opened: Opened) -> dict[str, Any]:
    """What the registry keeps of a bundle: all of it stood in the signed manifest."""
    facts = opened.manifest.facts
    return {
        "bundle": {
            "digest": opened.digest,
            "signer": opened.signer.name if opened.signer else "",
            "key": opened.key,
            "seq": opened.manifest.seq,
            "name": facts.name,
            "parent_digest": facts.parent_digest,
            "base_model_digest": facts.base_model_digest,
            "eval": dict(facts.evaluation or {}),
            "checkpoint": facts.checkpoint,
        },
        "privacy_stated": None if facts.privacy is None else dict(facts.privacy),
    }


def _keep_report(home: Home, brought: Imported, model: Model, who: str) -> None:
    """Where the signed manifest says that the model passed its gate, it may be served as one that did."""
    told = brought.opened.manifest.facts.evaluation or {}
    path = brought.folder / REPORT
    if told.get("gate") != "PASS" or not path.is_file():
        return
    with transaction(home) as link:
        guard.spend(link, home, who, importing.RIGHT, model.name)
        dataset, job = told.get("dataset", ""), report_of(brought.opened.digest)
        done = link.execute(
            "INSERT OR IGNORE INTO reports (model, dataset, created, job, passed, path, partial)"
            " VALUES (?, ?, ?, ?, 1, ?, 0)",
            (model.name, dataset, now(), job, str(path)),
        )
        if done.rowcount == 1:
            more = {"dataset": dataset, "passed": True, "partial": False, "job": job}
            audit.record(link, who=who, what=MEASURED, target=model.name, **more)


def _only(folder: Path, suffix: str) -> Path:
    """The one file of a kind in a bundle.

    Raises:
        ModelRejected: there are none, or several.
    """
    found = [one for one in folder.rglob(f"*{suffix}") if one.is_file()]
    if len(found) != 1:
        raise ModelRejected(
            f"The bundle has {len(found)} files that end in {suffix}, not one.", "Ask its maker."
        )
    return found[0]
