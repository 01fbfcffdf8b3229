"""What a model or a wheelhouse takes with it when it leaves. A model: its files, proof, reports, privacy
record, where it came from, its licence. No path of this machine, no record, no planted secret goes along.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, ModelRejected
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.models import registry
from appliance.models.registry import Model
from appliance.ops.receiving import REPORT
from appliance.privacy import ledger
from appliance.security.bundle.manifest import Facts
from appliance.security.bundle.writing import Source, bytes_source, file_source
from appliance.security.supply import wheelhouse

Take = Callable[..., Source]
"""As `file_source`: (path, name, what, *, sha256=None). Another one unseals files as they are read."""

AUDIT, PROOF = "reports/privacy-audit.json", "proof.json"
_STATED = ("LICENSE*", "NOTICE*", "README.md", "CARD.md")
_OF_AUDIT = (
    "format",
    "created",
    "model",
    "trained",
    "dataset",
    "synthetic",
    "private",
    "verdict",
    "verdicts",
)
_OF_CLAIM = (
    *("unit", "adjacency", "sampling", "mechanism", "trained", "learnt_from", "search", "noise_multiplier"),
    *("max_grad_norm", "sample_rate", "delta", "accountant", "declared_units", "made_up_units"),
    *("not_protected", "epsilon", "epsilon_dataset", "epsilon_limit", "steps_charged", "steps_released"),
)


def gather(
    home: Home, name: str, *, take: Take = file_source, checkpoint: str = ""
) -> tuple[tuple[Source, ...], Facts]:
    """The files and facts of the model called `name`, the same each time as long as nothing changes.

    `checkpoint`: the signed head of the audit log, which the receiver keeps as a witness.

    Raises:
        NotFound: no such model. ConfigWrong: a checkpoint folder, which is exported as its GGUF file.
        ModelRejected: an adapter's files are not those that were entered.
        BundleRefused: a file that no bundle may carry.
    """
    chain = registry.lineage(home, name)
    model = chain[0]
    if model.whole:
        raise ConfigWrong(
            f"{name} is a whole checkpoint; bundles carry adapters and GGUF files.",
            f"Make a file of it first: cloister quantize {name}.",
        )
    report, audit = _report(home, model), _audit(home, model)
    claim = _claim(chain)
    sources = [*_weights(model, take), *_proof(model, take)]
    for what, found, path in (("evaluation report", report, REPORT), ("privacy audit", audit, AUDIT)):
        if found is not None:
            sources.append(_json(found, path, what))
    if claim:
        kept = {key: claim[key] for key in _OF_CLAIM if key in claim}
        sources.append(_json(kept, "privacy.json", "privacy record"))
    sources.append(_json([_step(step) for step in chain], "lineage.json", "where it came from"))
    sources += _stated(chain, take)
    base = next((step for step in chain if step.kind == "base"), None)
    return tuple(sources), Facts(
        kind="adapter" if model.kind == "adapter" else "model",
        name=model.name,
        form=model.kind,
        parent_digest=chain[1].sha256 if len(chain) > 1 else "",
        base_model_digest=base.sha256 if base else "",
        privacy=_privacy(home, chain, claim, audit),
        evaluation=_figures(report),
        license=", ".join(
            sorted({source.entry.path for source in sources if "LICENSE" in source.entry.path})
        ),
        checkpoint=checkpoint,
    )


def gather_wheelhouse(folder: Path, *, checkpoint: str = "") -> tuple[tuple[Source, ...], Facts]:
    """The files and facts of the wheelhouse in `folder`, each checked against its checksums.

    Raises:
        DataRejected: it is no wheelhouse, or a file of it was changed, is missing or none of its own.
        BundleRefused: a link or a file with a second name.
    """
    items = wheelhouse.files(folder)
    sources = tuple(
        file_source(one.path, one.name, _of_wheelhouse(one.name), sha256=one.sha256) for one in items
    )
    told = json.loads((folder / wheelhouse.FACTS).read_bytes())
    name = f"wheelhouse-{str(told.get('profile', ''))[:16]}"
    return sources, Facts(kind=wheelhouse.KIND, name=name, checkpoint=checkpoint)


def _of_wheelhouse(name: str) -> str:
    if name.endswith(".whl"):
        return "package"
    told = {wheelhouse.SUMS: "checksums", wheelhouse.LOCK: "lock", wheelhouse.SBOM: "bill of materials"}
    return told.get(name, "installer" if name.endswith((".py", ".sh")) else "machine it is for")


def _weights(model: Model, take: Take) -> list[Source]:
    if model.path.is_dir():
        sources = [take(file, file.name, "adapter") for file in sorted(model.path.iterdir())]
        digest = hashlib.sha256()  # as sha256_folder, of the very bytes that will be carried
        for one in sources:
            digest.update(f"{one.entry.path}\0{one.entry.sha256}\n".encode())
        if digest.hexdigest() != model.sha256:
            raise ModelRejected(
                f"The files of {model.name} are not those that were entered in the registry.",
                "Nothing left. Restore them from a backup, or train again under another name.",
            )
        return sources
    kind = "the file of an adapter" if model.kind == "lora" else "the model"
    return [take(model.path, f"{model.name}.gguf", kind, sha256=model.sha256)]


def _proof(model: Model, take: Take) -> list[Source]:
    told = model.facts.get("proof_file")
    path = model.path.with_name(Path(str(told)).name) if told else None
    return [take(path, PROOF, "proof that it is the model it came from")] if path and path.is_file() else []


def _report(home: Home, model: Model) -> dict[str, Any] | None:
    """What the newest whole report says of this very model."""
    with reading(home) as link:
        row = link.execute(
            "SELECT path FROM reports WHERE model = ? AND partial = 0 ORDER BY created DESC LIMIT 1",
            (model.name,),
        ).fetchone()
    found = _read(Path(row["path"]).with_suffix(".json")) if row and row["path"] else None
    if found is None:
        return None
    return {
        "format": found.get("format"),
        "created": found.get("created"),
        "dataset": found.get("dataset"),
        "models": [one for one in found.get("models", []) if one.get("name") == model.name],
        "gates": [one for one in found.get("gates", []) if one.get("model") == model.name],
    }


def _audit(home: Home, model: Model) -> dict[str, Any] | None:
    from appliance.ops.privacy_audit import audits

    found = audits(home, model.name)
    report = _read(Path(found[0]["path"])) if found else None
    if report is None:
        return None
    rest = {key: report.get(key) for key in ("tests", "findings", "sizes", "limits")}
    return {key: report.get(key) for key in _OF_AUDIT} | rest


def _claim(chain: Sequence[Model]) -> dict[str, Any] | None:
    """The privacy claim of the nearest training: None where nothing was trained, {} where without."""
    trained = next((step for step in chain if step.trained), None)
    return None if trained is None else dict(trained.facts.get("privacy") or {})


def _privacy(
    home: Home, chain: Sequence[Model], claim: dict[str, Any] | None, audit: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The short form of the claim, for the manifest."""
    if claim is None:
        return None
    trained = next(step for step in chain if step.trained)
    verdict = str((audit or {}).get("verdicts", {}).get(chain[0].name, ""))
    if not claim:
        return {"unit": "", "eps": "", "delta": "", "accountant": "", "events": [], "audit": verdict}
    dataset = (trained.dataset or "").partition("@")[0]
    charged = ledger.charged(home, dataset, trained.job)
    return {
        "unit": str(claim.get("unit", "")),
        "eps": _decimal(claim.get("epsilon")),
        "delta": _decimal(claim.get("delta")),
        "accountant": str(claim.get("accountant", ""))[:100],
        "events": [
            {
                "noise_multiplier": _decimal(part.noise_multiplier),
                "sample_rate": _decimal(part.sample_rate),
                "draws": part.draws,
                "steps": part.steps,
            }
            for part in charged
        ],
        "audit": verdict,
    }


def _figures(report: dict[str, Any] | None) -> dict[str, str] | None:
    """The verdict and the first figures of a report, for the manifest."""
    row = next(iter(report["models"]), None) if report else None
    if report is None or row is None:
        return None
    told = {"gate": {True: "PASS", False: "FAIL"}.get(row.get("passed"), "-")}
    told["dataset"] = str((report["dataset"] or {}).get("title", ""))[:200]
    for name in ("accuracy", "macro_f1", "perplexity", "rows"):
        if isinstance(row.get(name), int | float):
            told[name] = f"{row[name]:.6g}"
    return told


def _step(model: Model) -> dict[str, Any]:
    told = {"name": model.name, "kind": model.kind, "sha256": model.sha256, "size": model.size}
    named = {"created": model.created, "dataset": model.dataset, "type": model.facts.get("type")}
    return told | named | {"versions": model.facts.get("versions")}


def _stated(chain: Sequence[Model], take: Take) -> list[Source]:
    """Licence and card of the nearest folder that has any."""
    for step in chain:
        folder = step.path if step.path.is_dir() else step.path.parent
        files = sorted({file for pattern in _STATED for file in folder.glob(pattern) if file.is_file()})
        names = {file: file.name if file.suffix else file.name.upper() for file in files}
        if files and step.kind != "adapter":
            return [take(file, f"licence/{name}", "licence or card") for file, name in names.items()]
    return []


def _json(value: Any, path: str, what: str) -> Source:
    return bytes_source((json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), path, what)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(read_bytes(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _decimal(value: Any) -> str:
    """A figure as the decimal string of a manifest; "" where it is no finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return ""
    text = f"{value:.10g}"
    return text if "e+" not in text else f"{value:.0f}"
