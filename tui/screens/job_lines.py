"""The text of a job's panes. Pure."""

from __future__ import annotations

import textwrap
from typing import Any

from appliance.ops.meters import Load
from tui.screens.machine import Gpu, Machine
from tui.screens.sayings import usable
from tui.screens.site import LIVE
from tui.screens.story import Picture, Stage, length, seconds
from tui.widgets.chart import draw_chart
from tui.widgets.fit import fit
from tui.widgets.gauge import gauge, gauge_line
from tui.words import NO_PRIVACY, PUBLIC, bytes_text

LOSS = "Loss  - training  o validation"
_ROUNDS = ("federate", "join", "simulate")
_MOST_BAR = 30
_NEARLY = 0.8  # of a budget
_FIGURES = (
    ("records", "{:,.0f} records"),
    ("kept", "{:,.0f} kept"),
    ("train", "train {:,.0f}"),
    ("val", "val {:,.0f}"),
    ("test", "test {:,.0f}"),
    ("version", "version {:.0f}"),
    ("bits", "{:.2f} bits a weight"),
    ("kld", "KL {:.4f}"),
)


def run_title(picture: Picture, now: float) -> str:
    """State and time of the run."""
    if not picture.started:
        return f"Run  {picture.state}"
    end = now if picture.state in LIVE else seconds(picture.newest)
    word = "for" if picture.state in LIVE else "after"
    return f"Run  {picture.state} {word} {length(end - seconds(picture.started))}"


def run_text(picture: Picture, title: str, width: int) -> str:
    """What runs and how far it is: a training by its steps, an endpoint by its address, others by stages."""
    if picture.stage == "serving" or picture.ready:
        return "\n".join(_endpoint(picture))
    lines = _about(picture, title, width)
    if "loss" in picture.figures:
        lines += _steps(picture)
    elif picture.plan is not None and picture.stage == "load":
        lines.append("stage  the first step ...")
    elif picture.stage:
        count = f"  {picture.done:,.0f} of {picture.total:,.0f}" if picture.total > 1 else ""
        lines.append(f"stage  {picture.stage}{count}")
        if picture.model:
            lines.append(f"now    {picture.model}")
    elif picture.state in LIVE:
        lines.append("stage  starting ...")
    if picture.left is not None and picture.state in LIVE and "loss" not in picture.figures:
        lines.append(f"left   {length(picture.left)}")
    if picture.share is not None and picture.stage != "load":
        lines.append(f"{gauge(picture.share, max(4, min(_MOST_BAR, width - 8)))} {picture.share:>4.0%}")
    return "\n".join(lines)


def _about(picture: Picture, title: str, width: int) -> list[str]:
    plan = picture.plan
    if plan is None or not plan.get("dataset"):
        return [f"job    {title}"] if title else []
    data = f"{plan['dataset']}@{plan.get('version', '?')}" if plan.get("version") else str(plan["dataset"])
    lines = [f"data   {data} ({plan['records']:,})" if usable(plan.get("records")) else f"data   {data}"]
    if base := plan.get("base"):
        what = str(plan.get("what") or "")
        forms = (f"model  {base} + {what}", f"model  {base} + {what.partition(' on ')[0]}", f"model  {base}")
        lines.insert(0, next(form for form in forms if len(form) <= width or form == forms[-1]))
    return lines


def _steps(picture: Picture) -> list[str]:
    plan, figures = picture.plan or {}, picture.figures
    step = f"step   {picture.done:,.0f} of {picture.total:,.0f}"
    if picture.stage != "train":
        step += f"   {picture.stage}"
    elif usable(plan.get("sample_rate")):
        rate = plan["sample_rate"]
        step += f"   epoch {picture.done * rate:.1f}/{picture.total * rate:.1f}"
    loss = f"loss   {figures['loss']:.3f}"
    if "validation_loss" in figures:
        loss += f"   val {figures['validation_loss']:.3f}"
    lines = [step, loss]
    parts = []
    if "tokens_per_second" in figures:
        parts.append(f"{figures['tokens_per_second']:,.0f} tok/s")
    if picture.left is not None and picture.state in LIVE:
        parts.append(f"left {length(picture.left)}")
    return [*lines, f"speed  {'   '.join(parts)}"] if parts else lines


def _endpoint(picture: Picture) -> list[str]:
    ready = picture.ready or {}
    named = (("model", "model"), ("at", "url"), ("engine", "engine"))
    lines = [f"{word:<6} {ready[key]}" for word, key in named if ready.get(key)]
    return lines or ["stage  starting ..."]


def side_title(picture: Picture, kind: str) -> str:
    """What the pane beside the run shows."""
    if kind in _ROUNDS and picture.rounds:
        return "Rounds"
    if picture.losses:
        return LOSS
    return "Endpoint" if kind == "serve" else "Steps"


def side_text(picture: Picture, kind: str, width: int, height: int) -> str:
    """Rounds, loss curve, figures of an endpoint, or the stages so far."""
    title = side_title(picture, kind)
    if title == "Rounds":
        told = [f"{number:>3}  {said}"[:width] for number, said in picture.rounds]
        return "\n".join(told[-max(1, height) :])
    if title == LOSS:
        return "\n".join(draw_chart(picture.losses, picture.validation, width, height))
    if title == "Endpoint":
        return "\n".join(line[:width] for line in _served(picture.figures))
    return "\n".join(stage_line(picture, stage, width) for stage in picture.stages[-max(1, height) :])


def stage_line(picture: Picture, stage: Stage, width: int) -> str:
    """`[x] read  7,085 records`; the one at work has its share."""
    at_work = stage == picture.stages[-1] and picture.state != "done"
    name = " ".join(filter(None, (stage.name, stage.what)))
    told = [form.format(stage.figures[key]) for key, form in _FIGURES if key in stage.figures]
    sign, share = "x", []
    if at_work:
        sign = ">" if picture.state in LIVE else "!"
        share = [f"{stage.share:.0%}"] if stage.total > 1 or stage.done else []
    parts = [f"[{sign}] {name}", *share, *told]
    line = "  ".join(parts)
    return line if len(line) <= width else fit(" ".join(parts), width)  # a count is never cut unseen


def _served(figures: dict[str, Any]) -> list[str]:
    def told(key: str, form: str = "{:,.0f}") -> str:
        return form.format(figures[key]) if key in figures else "-"

    if not figures:
        return ["No request yet."]
    lines = [
        f"requests {told('requests')}   now {told('active')}   waiting {told('queued')}",
        f"errors {told('errors')}   refused {told('refused')}   restarts {told('restarts')}",
        f"first token p50 {told('first_token_p50_ms')}  p95 {told('first_token_p95_ms')} ms",
        f"speed {told('tokens_per_second')} tok/s   written {told('tokens')} tokens",
        f"memory {told('rss_mb')} MB",
    ]
    if "cache_hits" in figures:
        lines.append(f"cache hits {told('cache_hits')}   misses {told('cache_misses')}")
    return lines


def budget_title(picture: Picture) -> str:
    """Whether the dataset's budget lasts, in a word."""
    plan = picture.plan or {}
    after, limit = plan.get("epsilon_after"), plan.get("epsilon_limit")
    if not usable(plan.get("noise_multiplier")):
        return "Privacy  NONE"
    if not usable(after) or not usable(limit):
        return "Privacy budget"
    share = spent(picture) / limit
    return f"Privacy budget  {'SPENT' if share >= 1 else 'LOW' if share >= _NEARLY else 'OK'}"


def spent(picture: Picture) -> float:
    """The most epsilon that the dataset has spent by now."""
    plan = picture.plan or {}
    return float(picture.figures.get("epsilon") or plan.get("epsilon_before") or 0.0)


def budget_text(picture: Picture, width: int, height: int) -> str:
    """Epsilon so far and at the end, how it is protected, and its curve where there is room."""
    plan = picture.plan
    if plan is None:
        return ""
    if not usable(plan.get("noise_multiplier")):
        return textwrap.fill(PUBLIC if plan.get("public") else NO_PRIVACY, max(20, width))
    now, after, limit = spent(picture), plan.get("epsilon_after"), plan.get("epsilon_limit")
    whole = limit if usable(limit) else after
    first = f"eps <= {now:.2f}" + (f" of {whole:g}" if usable(whole) else "")
    delta = f"  delta {plan['delta']:.2g}" if usable(plan.get("delta")) else ""
    lines = [first + delta if len(first + delta) <= width else first]
    if usable(whole) and whole > 0:
        lines.append(f"{gauge(now / whole, max(4, min(_MOST_BAR, width - 8)))} {min(1, now / whole):>4.0%}")
    noise = [f"noise {plan['noise_multiplier']:.2f}"]
    noise += [f"clip {plan['max_grad_norm']:g}"] if usable(plan.get("max_grad_norm")) else []
    noise += [f"clipped {picture.figures['clipped']:.0%}"] if "clipped" in picture.figures else []
    noise += [f"rate {plan['sample_rate']:g}"] if usable(plan.get("sample_rate")) else []
    lines += (
        textwrap.wrap("  ".join(noise), max(20, width))[:1]
        if len("  ".join(noise)) > width
        else ["  ".join(noise)]
    )
    if usable(after):
        ends = f"Ends at eps {after:.2f} if left to finish"
        lines.append(ends if picture.state in LIVE else f"Planned to end at eps {after:.2f}")
    if usable(plan.get("units")) and plan.get("unit"):
        who = plan["units"] - (plan.get("made_up") or 0)
        lines += textwrap.wrap(
            f"Protected: each of {who:,} {plan['unit']}s, with all records of that {plan['unit']}",
            max(20, width),
        )
    room = height - len(lines)
    if room >= 5 and len(picture.epsilons) > 1:
        lines += draw_chart(picture.epsilons, (), width, room)
    return "\n".join(lines)


def machine_text(
    picture: Picture, machine: Machine, gpu: Gpu | None, load: Load | None, *, now: float, width: int
) -> str:
    """Gauges of this machine, what the job takes of it, and what is safe already."""
    rows = [("CPU", machine.cpu, f"{machine.cores} cores")]
    if gpu is not None:
        rows.insert(0, ("GPU", gpu.busy, f"{gpu.used:.0f}/{gpu.total:.0f} GB  {gpu.heat:.0f} C"))
    rows.append(("RAM", machine.ram, f"{machine.ram_used:.1f}/{machine.ram_total:.1f} GB"))
    lines = [gauge_line(label, share, note, width) for label, share, note in rows]
    if load is not None:
        lines.append(f"job  {load.cores:.1f} cores  {bytes_text(load.memory)}")
    if picture.saved is not None:
        step, at = picture.saved
        ago = f", {length(now - seconds(at))} ago" if picture.state in LIVE else ""
        lines.append(f"saved up to step {step:,.0f}{ago}")
    return "\n".join(line[:width] for line in lines)
