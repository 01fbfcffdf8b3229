"""A run's curves as one picture: losses, privacy spent and clipping, over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.core.files import replacing

INK, SOFT, GRID = "#1f2933", "#52606d", "#d9e2ec"
BLUE, ORANGE = "#1f6fb2", "#c2571a"  # told apart in grey, and by people who see no red or green
DPI = 130


def draw(
    history: Sequence[Mapping[str, Any]], path: Path, *, title: str = "Training", synthetic: bool = False
) -> None:
    """Write the picture of a run's history (train/run.py) to `path` as PNG, whole or not at all.

    Panels: losses, and in a private run epsilon (an upper bound) and the share of clipped units. The same
    history gives the same bytes with the same matplotlib.

    Raises:
        NoRoom: the disk is full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    private = bool(_points(history, "epsilon")[0])
    figure = Figure(figsize=(11 if private else 6.2, 3.6), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if private else 1, squeeze=False)[0]
    figure.suptitle(
        f"{title} on synthetic records" if synthetic else title,
        x=0.01,
        ha="left",
        color=INK,
        fontsize=13,
        fontweight="bold",
    )
    _losses(panels[0], history)
    if private:
        _line(panels[1], "Epsilon of the dataset so far, at most", history, "epsilon")
        _line(panels[2], "Share of units whose gradient was clipped", history, "clipped")
        panels[2].set_ylim(0, 1.02)
        panels[2].yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    with replacing(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def _losses(panel: Any, history: Sequence[Mapping[str, Any]]) -> None:
    dress(panel, "Loss")
    for name, word, colour, style in (
        ("loss", "training", BLUE, {"linewidth": 1.6}),
        ("validation_loss", "validation", ORANGE, {"linewidth": 1.6, "marker": "o", "markersize": 5}),
    ):
        steps, values = _points(history, name)
        if steps:
            panel.plot(steps, values, color=colour, label=f"{word} ({values[-1]:.3f})", **style)
    if panel.lines:
        panel.legend(frameon=False, fontsize=9, labelcolor=INK)


def _line(panel: Any, title: str, history: Sequence[Mapping[str, Any]], name: str) -> None:
    dress(panel, title)
    steps, values = _points(history, name)
    panel.plot(
        steps, values, color=BLUE, linewidth=1.6, drawstyle="steps-post" if name == "epsilon" else None
    )
    panel.set_ylim(bottom=0)


def dress(panel: Any, title: str, along: str = "step") -> None:
    """Give a panel its title and quiet axes."""
    panel.set_title(title, loc="left", fontsize=10, color=INK)
    panel.set_xlabel(along, fontsize=9, color=SOFT)
    panel.tick_params(colors=SOFT, labelsize=9, length=0)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GRID)


def _points(history: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values wherever a step has that figure."""
    found = [(int(step["step"]), float(step[name])) for step in history if step.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]
