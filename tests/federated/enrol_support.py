"""Homes that are enrolled with each other, for tests: a coordinator and sites with keys, base and records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.core.files import work_folder
from appliance.core.home import Home, open_home
from appliance.data import store
from appliance.data.records import Record
from appliance.models import importing
from appliance.security.trust.words import words_of
from federated import approve, enrol, papers, setup, standing
from federated.flower.children import free_port
from federated.place import Place, held
from tui.site_key import make_site_key

TASK = {"kind": "label", "prompt": store.PROMPTS["label"], "labels": ["a", "b"]}
ROUNDS = {"count": 2, "quorum": 3, "min_cohort": 3, "deadline_minutes": 1.0, "clip_bound": 1.0}
TRAINING = {
    "epsilon": 8.0, "delta": 1e-4, "unit": "patient", "steps": 2, "sample_rate": 0.5, "learning_rate": 0.01,
    "max_grad_norm": 0.2,
}  # fmt: skip
LORA = {"rank": 2, "alpha": 4, "targets": ["v_proj"], "layers": 0, "seed": 0}


@dataclass
class Hospital:
    """A home and what it has in the federation north."""

    home: Home
    name: str

    @property
    def place(self) -> Place:
        """Its folder of north."""
        return held(self.home, "north")

    def request(self, **changed: Any) -> bytes:
        """Its request to be in north."""
        said = {"site": self.name, "dataset": "visits", "units": None, "again": False, "who": "ana"}
        return enrol.request(self.home, "north", **(said | changed))

    def seating(self, kit: bytes, **settings: Any) -> enrol.Seating:
        """What joining with a kit would be."""
        return enrol.seating(self.home, kit, base="", settings=settings)

    def join(self, kit: bytes, **settings: Any) -> None:
        """Take the seat of a kit."""
        enrol.join(self.home, self.seating(kit, **settings), who="ana")

    @property
    def words(self) -> str:
        """What it reads out."""
        return words_of(standing.own_keys(self.home).key)


def hospital(
    folder: Path, name: str, *, records: int = 240, labels: tuple[str, ...] = ("a", "b")
) -> Hospital:
    """A home with keys, the shipped base and made-up records."""
    home = open_home(folder / name)
    make_site_key(home, "ana", name, "site")
    importing.import_base(home, importing.DEMO_BASE, "demo-base", who="ana")
    parts = {
        "train": [
            Record(id=f"{n}", text=f"note {n}", answer=labels[n % 2], unit=f"{name}-{n}")
            for n in range(records)
        ],
        "val": [Record(id="v", text="a note", answer=labels[0], unit=f"{name}-v")],
        "test": [Record(id="t", text="a note", answer=labels[1], unit=f"{name}-t")],
    }
    draft = work_folder(home.datasets / ".draft")
    store.write_splits(draft, parts)
    store.publish(
        home,
        draft,
        name="visits",
        task="label",
        labels=labels,
        unit="patient",
        counts={split: len(some) for split, some in parts.items()},
        units={split: len(some) for split, some in parts.items()},
        prompt=store.PROMPTS["label"],
        synthetic=True,
        facts={"labels_declared": True},
        job="",
        who="ana",
    )
    return Hospital(home=home, name=name)


def coordinator(folder: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Hospital:
    """The coordinator of north; the adapter's layout is not worked out, which would load the base."""
    made = hospital(folder, "hub")
    monkeypatch.setattr(setup, "measured", lambda home, federation: federation)
    setup.init(made.home, draft(**changed), who="ana")
    return made


def draft(**changed: Any) -> setup.Draft:
    """The agreement of north."""
    said: dict[str, Any] = {
        "name": "north", "gateway": f"127.0.0.1:{free_port()}", "base": "demo-base", "lora": LORA,
        "task": TASK, "rounds": ROUNDS, "training": TRAINING,
    }  # fmt: skip
    return setup.Draft(**(said | changed))


def approved(hub: Hospital, request: bytes, **changed: Any) -> approve.Approved:
    """A site taken in, its words compared."""
    said = {"words": papers.request_words(request), "who": "ana", "file": None, "asked": lambda: ""}
    return approve.approve(hub.home, request, **(said | changed))
