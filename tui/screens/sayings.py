"""What a job's log says of its events, one line each. Pure."""

from __future__ import annotations

import math
from typing import TypeGuard

from appliance.core.events import Event
from tui.cli.federate_lines import event_line
from tui.cli.lines import plan_lines

_STEP = (("loss", "loss {:.3f}"), ("validation_loss", "val {:.3f}"), ("epsilon", "eps <= {:.2f}"))


def step_said(event: Event) -> str:
    """A step of training."""
    told = [form.format(event[key]) for key, form in _STEP if usable(event.get(key))]
    return "  ".join([f"step {event['done']:g}", *told])


def plan_said(plan: Event) -> list[str]:
    """What a run is about to do, a fact a line; a plan of another shape is told as made."""
    try:
        return plan_lines(plan)
    except (KeyError, TypeError, ValueError):
        return ["plan made"]


def round_said(event: Event) -> str | None:
    """An event of a federation, or a simulated round, in one line; None for what nobody needs to see."""
    try:
        if event["event"] == "federation":
            return event_line(event)
        refused = sum(event["refused"].values())
        return (
            f"round {event['round']}: accuracy {event['accuracy']:.3f} from {event['sites']} sites"
            + (f", {refused} refused" if refused else "")
            + f", {event['seconds']:.0f} s"
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def ending(event: Event) -> str:
    """The last line of a job's log."""
    if event["event"] == "failed":
        return f"failed: {event.get('message', '')}"
    if event["event"] == "stopped":
        return f"stopped ({event.get('reason', 'asked')})"
    return "done"


def usable(value: object) -> TypeGuard[float]:
    """A finite number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
