"""A search as one picture: the validation loss of every trial over each setting that was searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core.files import replacing
from appliance.train.curves import BLUE, DPI, INK, ORANGE, dress
from appliance.train.space import Range, Space
from appliance.train.trials import Trial, best_of

_MOST_PANELS = 4


def draw_trials(trials: Sequence[Trial], space: Space, path: Path, *, synthetic: bool = False) -> None:
    """Write the picture to `path` as PNG: a panel for each of the first settings, the best trial marked.

    Raises:
        NoRoom: the disk is full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = list(space)[:_MOST_PANELS]
    figure = Figure(figsize=(1.5 + 3.4 * len(names), 3.6), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1))
    FigureCanvasAgg(figure)
    done, best = [trial for trial in trials if trial.loss is not None], best_of(trials)
    title = "Search on synthetic records" if synthetic else "Search"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13, fontweight="bold")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        dress(panel, "Validation loss", name)
        places = _places(name, space, done)
        panel.plot(places, [trial.loss for trial in done], "o", color=BLUE, markersize=6)
        if best in done:
            at = places[done.index(best)]
            panel.plot([at], [best.loss], "D", color=ORANGE, markersize=8, label=f"best: trial {best.number}")
            panel.legend(frameon=False, fontsize=9, labelcolor=INK)
        _scale(panel, name, space)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def _places(name: str, space: Space, trials: Sequence[Trial]) -> list[float]:
    values = space[name]
    if isinstance(values, Range):
        return [float(trial.settings[name]) for trial in trials]
    return [float(values.values.index(trial.settings[name])) for trial in trials]


def _scale(panel: Any, name: str, space: Space) -> None:
    values = space[name]
    if isinstance(values, Range):
        if values.low > 0:
            panel.set_xscale("log")
        return
    panel.set_xticks(range(len(values.values)), [str(value) for value in values.values])
    panel.set_xlim(-0.5, len(values.values) - 0.5)
