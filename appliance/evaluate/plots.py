"""Small plots as inline SVG: no scripts, no outside files, colours from the page's variables.

Every plot has a title and a description for screen readers, and every mark that matters also
stands there as text. Coordinates are in px of a 720 px wide drawing that scales down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH = 720
_LEFT, _RIGHT = 180, 155
_ROW = 34


def svg(title: str, description: str, height: float, body: Sequence[str]) -> str:
    """The drawing around `body`; titles on a page must differ."""
    name = re.sub(r"\W+", "-", title.lower())
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name} {name}-text">'
        f'<title id="{name}">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def accuracy_bars(rows: Sequence[dict[str, Any]], name: str, field: str, ci: str) -> str:
    """One bar a model with its interval; `field` and `ci` name figures of a report's model rows."""
    top = max(1.0, *(row[ci][1] for row in rows)) if field != "perplexity" else max(r[ci][1] for r in rows)
    body = _grid(top, len(rows) * _ROW, percent=field != "perplexity")
    told = []
    for number, row in enumerate(rows):
        value, (low, high) = row[field], row[ci]
        y = number * _ROW + 8
        text = _figure(value, field)
        body += [
            _label(row["name"], y + 13),
            f'<rect class="{_role(row)}" x="{_LEFT}" y="{y}" width="{_x(value, top) - _LEFT:.1f}"'
            ' height="18" rx="2"/>',
            _whisker(_x(low, top), _x(high, top), y + 9),
            f'<text class="value" x="{WIDTH - _RIGHT + 10}" y="{y + 13}">{text}'
            f'<tspan class="soft" dx="6">{span(low, high, field)}</tspan></text>',
        ]
        told.append(f"{row['name']} {text} ({_figure(low, field)} to {_figure(high, field)})")
    return svg(f"{name} by model", "; ".join(told), len(rows) * _ROW + 26, body)


def size_plot(rows: Sequence[dict[str, Any]], name: str, field: str) -> str:
    """Size on disk (log) against accuracy or perplexity, names in a column on the right."""
    bottom, left, right = max(200, 20 * len(rows)), 60, WIDTH - 270
    sizes = [math.log10(row["size"]) for row in rows]
    low_x, high_x = min(sizes) - 0.1, max(sizes) + 0.1
    low_y, high_y = _nice_range([row[field] for row in rows], None if field == "perplexity" else 1.0)

    def height(value: float) -> float:
        return bottom - (value - low_y) / (high_y - low_y) * (bottom - 14)

    body = []
    for tick in _ticks(low_y, high_y):
        y = height(tick)
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="soft end" x="{left - 8}" y="{y + 4:.1f}">{_figure(tick, field)}</text>')
    dots = []
    beside = _spread([height(row[field]) for row in rows], 19, bottom)
    for row, size, at in zip(rows, sizes, beside, strict=True):
        x, y = left + (size - low_x) / (high_x - low_x) * (right - left), height(row[field])
        body.append(f'<path class="lead" d="M{x:.1f} {y:.1f}L{right + 6} {at:.1f}H{right + 12}"/>')
        dots.append(f'<circle class="{_role(row)}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
        dots.append(
            f'<text class="value" x="{right + 17}" y="{at + 4:.1f}">{escape(_short(row["name"]))}'
            f'<tspan class="soft" dx="6">{megabytes(row["size"])}</tspan></text>'
        )
    body += [*dots, f'<text class="soft" x="{left}" y="{bottom + 24}">smaller ← size on disk → larger</text>']
    told = "; ".join(f"{row['name']} {megabytes(row['size'])}, {_figure(row[field], field)}" for row in rows)
    return svg(f"Size against {name.lower()}", told, bottom + 32, body)


def _spread(wanted: Sequence[float], gap: float, bottom: float) -> list[float]:
    """Heights near those wanted, at least `gap` apart, the lowest not below `bottom`."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    placed = dict.fromkeys(order, 0.0)
    last = -math.inf
    for at in order:
        last = placed[at] = max(wanted[at], last + gap, 12.0)
    limit = bottom
    for at in reversed(order):
        limit = placed[at] = min(placed[at], limit)
        limit -= gap
    return [placed[at] for at in range(len(wanted))]


def curve_plot(points: Sequence[dict[str, Any]], field: str, name: str) -> str:
    """One figure of the training run over its steps, with validation marks if it is the loss."""
    known = [(p["step"], p[field]) for p in points if p.get(field) is not None]
    marks = [(p["step"], p["validation_loss"]) for p in points if p.get("validation_loss") is not None]
    marks = marks if field == "loss" else []
    if len(known) < 2:
        return ""
    left, right, bottom = 60, WIDTH - 30, 150
    low, high = _nice_range([value for _, value in known + marks], None, from_zero=field == "epsilon")
    last = max(step for step, _ in known)

    def place(step: float, value: float) -> str:
        x = left + step / last * (right - left)
        return f"{x:.1f},{bottom - (value - low) / (high - low) * (bottom - 14):.1f}"

    body = []
    for tick in _ticks(low, high, 4):
        y = place(0, tick).split(",")[1]
        body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        body.append(f'<text class="soft end" x="{left - 8}" y="{float(y) + 4:.1f}">{tick:g}</text>')
    body.append(f'<polyline class="line tuned" points="{" ".join(place(*point) for point in known)}"/>')
    for point in marks:
        x, y = place(*point).split(",")
        body.append(f'<circle class="base" cx="{x}" cy="{y}" r="4"/>')
    body.append(f'<text class="soft" x="{left}" y="{bottom + 20}">step 1</text>')
    body.append(f'<text class="soft end" x="{right}" y="{bottom + 20}">step {last}</text>')
    if marks:
        key = '<circle class="base" cx="{0}" cy="{1}" r="4"/><text class="soft" x="{2}" y="{3}">{4}</text>'
        body.append(key.format(300, bottom + 16, 310, bottom + 20, "on validation records"))
    told = f"{name} from {known[0][1]:.3g} at step {known[0][0]} to {known[-1][1]:.3g} at step {last}"
    return svg(f"{name} over training", told, bottom + 30, body)


def recall_bars(base: dict[str, Any] | None, tuned: dict[str, Any], most: int = 30) -> str:
    """Recall per label of the tuned model and of its base, worst first, `most` labels at most."""
    before = {label["label"]: label["recall"] for label in (base["per_label"] if base else [])}
    labels = sorted((one for one in tuned["per_label"] if one["rows"]), key=lambda one: one["recall"])[:most]
    body = _grid(1.0, len(labels) * _ROW, percent=True)
    told = []
    for number, one in enumerate(labels):
        y = number * _ROW + 5
        after, old = one["recall"], before.get(one["label"])
        body.append(_label(one["label"], y + 16))
        if old is not None:
            body.append(_bar("base", y, old, 10))
        body.append(_bar("tuned", y + (11 if before else 5), after, 10))
        was = f'<tspan class="soft" dx="6">was {old:.0%}</tspan>' if old is not None else ""
        body.append(
            f'<text class="value" x="{WIDTH - _RIGHT + 10}" y="{y + 15}">{after:.0%}{was}'
            f'<tspan class="soft" dx="6">n {one["rows"]}</tspan></text>'
        )
        told.append(f"{one['label']} {after:.0%}" + (f", was {old:.0%}" if old is not None else ""))
    return svg("Recall by label", "; ".join(told), len(labels) * _ROW + 26, body)


def confusion_plot(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """What was answered (columns) for each true label (rows). For at most 25 labels."""
    none = any(row[-1] for row in counts)
    columns = [*labels, "no label"] if none else list(labels)
    head, left = 110, 150
    cell = min(40.0, (WIDTH - left - 20) / len(columns))
    body = [
        f'<text class="soft" x="{left}" y="14">answered →  (rows: true label, shade: share of the row)</text>'
    ]
    for column, label in enumerate(columns):
        x = left + (column + 0.6) * cell
        body.append(
            f'<text class="small" transform="translate({x:.1f},{head - 6}) rotate(-50)">'
            f"{escape(_short(label, 16))}</text>"
        )
    for row, label in enumerate(labels):
        y = head + row * cell
        total = max(1, sum(counts[row]))
        middle = f"{y + cell * 0.65:.1f}"
        body.append(f'<text class="small end" x="{left - 8}" y="{middle}">{escape(_short(label, 20))}</text>')
        for column in range(len(columns)):
            number = counts[row][column]
            x = left + column * cell
            kind = "tuned" if row == column else "bad"
            body.append(
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}"/>'
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}"'
                f' fill-opacity="{min(1.0, number / total):.2f}"/>'
            )
            if number:
                tone = "over" if number / total > 0.55 else "value"
                body.append(
                    f'<text class="small mid {tone}" x="{x + cell / 2:.1f}" y="{middle}">{number}</text>'
                )
    wrong = sum(sum(row) for row in counts) - sum(counts[at][at] for at in range(len(labels)))
    told = f"{len(labels)} labels, {wrong} of {sum(sum(row) for row in counts)} records off the diagonal"
    return svg("Confusion of labels", told, head + len(labels) * cell + 10, body)


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def span(low: float, high: float, field: str) -> str:
    """The ends of an interval of `field`."""
    return f"{low:.2f}-{high:.2f}" if field == "perplexity" else f"{low * 100:.1f}-{high:.1%}"


def _x(value: float, top: float) -> float:
    return _LEFT + value / top * (WIDTH - _LEFT - _RIGHT)


def _grid(top: float, height: float, *, percent: bool) -> list[str]:
    body = []
    for tick in _ticks(0.0, top):
        x = _x(tick, top)
        text = f"{tick:.0%}" if percent else f"{tick:g}"
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.0f}"/>')
        body.append(f'<text class="soft mid" x="{x:.1f}" y="{height + 18:.0f}">{text}</text>')
    return body


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about so many of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 10) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _nice_range(
    values: Sequence[float], ceiling: float | None, *, from_zero: bool = False
) -> tuple[float, float]:
    low, high = (0.0 if from_zero else min(values)), max(values)
    pad = max((high - low) * 0.12, abs(high) * 0.05, 0.01)  # no zooming in on noise
    top = high + pad if ceiling is None else min(ceiling, high + pad)
    return (low if from_zero else max(0.0, low - pad)), top


def _bar(kind: str, y: float, value: float, height: float) -> str:
    width = _x(value, 1.0) - _LEFT
    return f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{height}" rx="1"/>'


def _whisker(low: float, high: float, y: float) -> str:
    ends = "".join(f"M{x:.1f} {y - 5}V{y + 5}" for x in (low, high))
    return f'<path class="whisker" d="M{low:.1f} {y}H{high:.1f}{ends}"/>'


def _label(text: str, y: float) -> str:
    return f'<text class="end" x="{_LEFT - 10}" y="{y}">{escape(_short(text))}</text>'


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _figure(value: float, field: str) -> str:
    return f"{value:.2f}" if field == "perplexity" else f"{value:.1%}"


def _role(row: dict[str, Any]) -> str:
    return "base" if row["role"] == "base" else "tuned"
