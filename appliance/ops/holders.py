"""Which models hold what they learnt from which data set."""

from __future__ import annotations

from appliance.core.home import Home
from appliance.data import store
from appliance.models import registry


def holders(home: Home) -> tuple[dict[str, list[str]], list[str]]:
    """The models that hold each data set (title), in order, also of those whose records were removed; and
    models whose origin is not known any more."""
    models = registry.models(home)
    by_name = {model.name: model for model in models}
    held: dict[str, list[str]] = {one.title: [] for one in (*store.datasets(home), *store.removed(home))}
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
