"""The text of the model list. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.models.registry import Model
from tui.screens.site import SiteView
from tui.words import figure


def cells(model: Model, view: SiteView, room: int) -> tuple[str, ...]:
    """One row: name, kind, type, size, accuracy, gate, epsilon, from."""
    accuracy, passed = view.accuracy.get(model.name), view.passed.get(model.name)
    epsilon = epsilon_of(lineage(model, view.models))
    name = model.name if len(model.name) <= room else model.name[: room - 2] + ".."
    return (
        name,
        model.kind,
        str(model.facts.get("type") or "-"),
        size_text(model.size),
        "-" if accuracy is None else f"{accuracy:.3f}",
        "-" if passed is None else "PASS" if passed else "FAIL",
        epsilon,
        model.parent or "-",
    )


def epsilon_of(chain: Sequence[Model]) -> str:
    """Epsilon of the nearest training in the lineage; "none" where it was not private."""
    for model in chain:
        if "privacy" in model.facts and model.kind != "base":
            privacy = model.facts["privacy"]
            return f"{privacy['epsilon']:.2f}" if privacy else "none"
    return "-"


def size_text(size: int) -> str:
    """Bytes in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def lineage(model: Model, models: Sequence[Model]) -> list[Model]:
    """The model and its ancestors, itself first."""
    by_name = {other.name: other for other in models}
    chain = [model]
    while (parent := by_name.get(chain[-1].parent or "")) is not None and parent not in chain:
        chain.append(parent)
    return chain


def lineage_text(chain: Sequence[Model]) -> str:
    """From the base down to the model, one step a line, data and job with each."""
    lines = []
    for depth, model in enumerate(reversed(chain)):
        sign = "" if depth == 0 else "> "
        kind = str(model.facts.get("type") or model.kind)
        demo = " (demo)" if model.facts.get("demo") else ""
        data = f" + {model.dataset}" if model.dataset else ""
        synthetic = " (synthetic)" if model.dataset and model.facts.get("synthetic") else ""
        job = f"  job {model.job}" if model.job else ""
        lines.append(
            f"{'  ' * depth}{sign}{model.name}  {kind}{demo}{data}{synthetic}{job}  sha {model.sha256[:8]}"
        )
    return "\n".join(lines)


def card_text(chain: Sequence[Model], view: SiteView) -> str:
    """A model's card in short: lineage, task, privacy statement, report."""
    model = chain[0]
    lines = [lineage_text(chain), ""]
    if task := model.facts.get("task"):
        labels = f", {len(task['labels'])} labels" if task.get("labels") else ""
        lines.append(f"task: {task['kind']}{labels}")
    private = next((step.facts["privacy"] for step in chain if "privacy" in step.facts), None)
    if private:
        lines += [f"{name.replace('_', ' ')}: {figure(value)}" for name, value in private.items()]
    elif any(step.trained for step in chain):
        lines.append("privacy: none, this model may repeat what it was trained on")
    people = next((step.facts["people"] for step in chain if step.facts.get("people")), view.people)
    lines.append(f"people: {people}")
    accuracy, passed = view.accuracy.get(model.name), view.passed.get(model.name)
    if passed is None:
        lines.append(f"report: none yet. Make one: cloister evaluate {model.name}")
    else:
        score = "" if accuracy is None else f", accuracy {accuracy:.3f}"
        lines.append(f"report: gate {'PASS' if passed else 'FAIL'}{score}")
    return "\n".join([*lines, "", f"More: cloister model card {model.name}"])
