"""Which files an endpoint serves: those that passed the gate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from appliance.core.db import reading
from appliance.core.errors import ConfigWrong, GateFailed, NotFound
from appliance.core.home import Home
from appliance.core.reading import read_bytes
from appliance.models import registry
from appliance.models.registry import Model
from appliance.models.verdicts import verdicts


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What answers to `asked`: the GGUF entry `file`, with the adapter's own file on it or none."""

    asked: str
    file: Model
    adapter: Model | None = None

    @property
    def name(self) -> str:
        """The registry name of what answers."""
        return (self.adapter or self.file).name


def choose(home: Home, name: str, *, gated: bool) -> Chosen:
    """What to serve for `name`: itself, or the smallest file made from it that passed the gate.

    Where that is not asked for (`gated`) and none has, the smallest of all. An adapter's own file was
    proven on its base in F16, so it is served on that; the gate is that of the adapter it was made from.

    Raises:
        NotFound: no such model, or no file of it. GateFailed: none that may be served.
        ConfigWrong: it is an embedding model.
    """
    entry = registry.get(home, name)
    if entry.kind == "lora":
        return _on_base(home, entry, gated=gated)
    if entry.facts.get("embeds"):
        raise ConfigWrong(
            f"{name} makes vectors and answers nothing.",
            f"Serve another model with it: cloister serve MODEL --embed {name}.",
        )
    files = [entry] if entry.kind == "gguf" else _files_of(home, name)
    if not files:
        raise NotFound(f"{name} has no GGUF file yet.", f"Make one: cloister quantize {name}.")
    good = verdicts(home)
    passed = [file for file in files if good.get(file.name)] or ([] if gated else files)
    if not passed:
        raise _not_passed(home, name, files)
    return Chosen(asked=name, file=min(passed, key=lambda file: file.size))


def _on_base(home: Home, entry: Model, *, gated: bool) -> Chosen:
    base = str(entry.facts.get("proof", {}).get("base", ""))
    files = [file for file in _files_of(home, base) if file.facts.get("type") == "F16"]
    if not files:
        raise NotFound(
            f"{entry.name} is an adapter's file, and its base {base} has no GGUF file in F16.",
            f"Make one: cloister quantize {base} --to F16.",
        )
    parent = entry.parent or ""
    proven = [parent, *(file.name for file in _files_of(home, parent) if file.facts.get("type") == "F16")]
    good = verdicts(home) if gated else {}
    if gated and not any(good.get(name) for name in proven):
        raise GateFailed(
            f"{parent}, which {entry.name} was made from, has no report that lets it be served.",
            f"Measure it first: cloister evaluate {parent}. Or serve it as it is with --ungated.",
        )
    return Chosen(asked=entry.name, file=files[0], adapter=entry)


def _files_of(home: Home, name: str) -> list[Model]:
    entries = registry.models(home)
    return [entry for entry in entries if entry.kind == "gguf" and entry.parent == name]


def _not_passed(home: Home, name: str, files: list[Model]) -> GateFailed:
    """Never measured, only in part, or measured and failed: the newest report knows, a whole one first."""
    marks = ", ".join("?" * len(files))
    query = (
        f"SELECT model, path, partial, passed FROM reports WHERE model IN ({marks})"  # noqa: S608
        " ORDER BY partial, created DESC LIMIT 1"
    )
    with reading(home) as link:
        row = link.execute(query, [file.name for file in files]).fetchone()
    chain = registry.lineage(home, name)
    if row is None and chain[-1].kind == "base" and not any(entry.trained for entry in chain):
        return GateFailed(
            f"{name} was not tuned here, so that there is no gate it could pass.",
            "Serve it as it is with --ungated.",
        )
    if row is None:
        return GateFailed(
            f"{name} has no report that lets it be served.",
            f"Measure it first: cloister evaluate {files[0].name}. Or serve it as it is with --ungated.",
        )
    if row["partial"]:
        return GateFailed(
            f"{row['model']} was only measured in part, which lets no model be served.",
            f"Measure it on all test records: cloister evaluate {name}. Or serve it with --ungated.",
        )
    if row["passed"]:
        return GateFailed(
            f"{row['model']} has no newest report of which the audit log says that it passed.",
            f"Measure it anew: cloister evaluate {row['model']}. Or serve it as it is with --ungated.",
        )
    report = Path(row["path"])
    reason = _first_reason(report.with_suffix(".json"), row["model"]) if report.name else ""
    return GateFailed(
        f"{row['model']} was measured and did not pass the gate{reason and ': '}{reason}.",
        f"See the report: {report}. Train it better and measure again, or serve it as it is with --ungated.",
    )


def _first_reason(report: Path, model: str) -> str:
    """The first demand of the gate that `model` missed; empty when the report does not say."""
    try:
        gates = json.loads(read_bytes(report))["gates"]
        gate = next(gate for gate in gates if gate["model"] == model)
        missed = next((one for one in gate["clauses"] if not one["passed"]), None)
        if missed is None:
            return str(next(iter(gate["notes"]), "")).rstrip(".")
        return f"{missed['name']} needs {missed['need']}, got {missed['got']}"
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return ""
