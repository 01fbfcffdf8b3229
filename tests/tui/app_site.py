"""A small site on disk for the screen tests: rows and event files as the product writes them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from appliance.core.db import transaction
from appliance.core.events import append_event, now
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.core.processes import began
from appliance.models import registry
from tui.app import Cloister
from tui.session import Session

Act = Callable[[Cloister, Pilot[None]], Awaitable[None]]

PLAN = {
    "steps": 50,
    "learning_rate": 0.02,
    "units": 1600,
    "records": 3210,
    "unit": "patient",
    "sample_rate": 0.5,
    "sampling": "unit",
    "expected_batch": 800.0,
    "noise_multiplier": 4.07,
    "epsilon_before": 0.0,
    "epsilon_after": 7.99,
    "delta": 6.2e-05,
    "accountant": "privacy loss distribution, add and remove",
    "noise_on_mean": 0.005,
    "dataset": "inbox",
    "version": 1,
    "synthetic": True,
    "base": "demo-base",
    "what": "LoRA of rank 4 on v_proj, o_proj, down_proj (B only, A is left as it was drawn)",
    "max_grad_norm": 0.2,
    "epsilon_limit": 8.0,
    "warnings": [],
}
NOWHERE = (2**22 - 3, 1.0)  # a process that is not there


def session(folder: Path) -> Session:
    """A session at a new home."""
    return Session(folder, who="mira")


def job(home: Home, kind: str, title: str, *, process: tuple[int, float] | None = NOWHERE) -> Path:
    """Enter a job without starting it; returns its folder. `process` is its id and start time."""
    with transaction(home) as link:
        number = link.execute("SELECT COUNT(*) FROM jobs").fetchone()[0] + 1
        link.execute(
            "INSERT INTO jobs (id, kind, title, who, created, pid, pid_started) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (f"{number:04d}", kind, title, "mira", now(), *(process or (None, None))),
        )
    folder = home.jobs / f"{number:04d}"
    folder.mkdir()
    write_json(folder / "spec.json", {"kind": kind, "who": "mira", "spec": {}})
    return folder


def me() -> tuple[int, float]:
    """This process: a job that runs for as long as the test does."""
    return os.getpid(), began(os.getpid())


def tell(folder: Path, event: str, **data: Any) -> None:
    """Append an event to a job."""
    append_event(folder / "events.jsonl", event, **data)


def step(folder: Path, number: int, steps: int = 50, **data: Any) -> None:
    """One training step's progress."""
    facts = {
        "loss": 3.5 - 0.03 * number,
        "epsilon": 3.12,
        "clipped": 0.61,
        "tokens_per_second": 412.0,
        "units": 800,
        "left": 72.0,
    }
    tell(folder, "progress", stage="train", done=number, total=steps, **facts | data)


def training(home: Home, steps: int = 20) -> Path:
    """A training job in the middle of its run."""
    folder = job(home, "train", "train inbox", process=me())
    tell(folder, "started", kind="train")
    tell(folder, "progress", stage="load", done=0, total=1)
    tell(folder, "plan", **PLAN)
    for number in range(1, steps + 1):
        step(folder, number, **({"validation_loss": 3.4 - 0.02 * number} if number % 10 == 0 else {}))
    return folder


def failed(home: Home) -> Path:
    """An import that failed."""
    folder = job(home, "import", "import notes")
    tell(folder, "started", kind="import")
    tell(
        folder,
        "failed",
        code="data-rejected",
        message="There is no column named dignosis.",
        hint="The columns are: text, diagnosis, patient.",
        exit=4,
    )
    return folder


def models(home: Home) -> None:
    """A base, its adapter, and a GGUF of that."""
    privacy = {"epsilon": 7.99, "delta": 6.2e-05, "unit": "patient"}
    for name, kind, parent, dataset, size, facts in (
        ("demo-base", "base", None, None, 7_400_000, {"demo": True}),
        ("lora-0002", "adapter", "demo-base", "inbox@1", 420_000, {"privacy": privacy, "synthetic": True}),
        ("lora-0002-q4_k_m", "gguf", "lora-0002", None, 2_900_000, {"type": "Q4_K_M", "privacy": privacy}),
    ):
        registry.add(
            home,
            registry.Model(
                name=name,
                kind=kind,
                path=home.models / name,
                sha256=(name.encode().hex() * 8)[:64],
                size=size,
                job="0002" if parent else "",
                parent=parent,
                dataset=dataset,
                facts=facts,
            ),
            who="mira",
        )


# --- driving the screens


def screens(site: Session, act: Act, size: tuple[int, int] = (80, 24)) -> None:
    """Run the app on `site` at `size` and hand it to `act`; an error inside it fails the test."""

    async def main() -> None:
        app = Cloister(site)
        async with app.run_test(size=size, notifications=True) as pilot:
            await act(app, pilot)

    asyncio.run(main())


async def until(pilot: Pilot[None], true: Callable[[], bool], what: str, patience: float = 60.0) -> None:
    """Wait until `true()`; the workers behind the screens are real, so there is no other way to know."""
    limit = time.monotonic() + patience
    while not true():
        assert time.monotonic() < limit, f"{what}; the screen shows:\n" + shown(pilot.app)
        await pilot.pause(0.02)


def lines(app: App[None]) -> list[str]:
    """The screen as a terminal shows it."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def shown(app: App[None]) -> str:
    """All lines."""
    return "\n".join(lines(app))
