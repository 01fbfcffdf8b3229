"""One flipped bit in any stored file is noticed when the file is read, and the file is named.

In a sealed home that is every file of its areas; a flip that is not noticed must have changed nothing. In a
plain home it is what has a hash: datasets and models.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from vault_support import sealed_home, unlocked

from appliance.core import files, reading, vaulted
from appliance.core.errors import ApplianceError, DataRejected, ModelRejected
from appliance.core.home import Home, open_home
from appliance.core.job import Job
from appliance.core.sealing import SealBroken
from appliance.data import store
from appliance.data.job import run as import_data
from appliance.models import registry
from appliance.models.registry import Model
from appliance.security.vault.header import LENGTH
from appliance.serve import feedback
from appliance.serve.documents.indexing import update
from appliance.serve.feedback import Answers


def filled(home: Home, sources: Path) -> None:
    """Something in every area, written by the code that writes it."""
    (sources / "documents").mkdir(parents=True)
    (sources / "documents" / "a.txt").write_text("Staff have 30 days of leave a year.\n" * 50)
    with (sources / "a.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["patient", "message", "queue"])
        rows.writerows([f"P{n}", f"a cough, number {n}", "ab"[n % 2]] for n in range(60))
    job = Job(id="0001", kind="import", folder=home.jobs / "0001", home=home)
    job.folder.mkdir()
    files.write_json(job.folder / "spec.json", {"kind": "import"})
    columns = {"text": "message", "label": "queue", "unit": "patient"}
    import_data({"path": str(sources / "a.csv"), "name": "letters", "columns": columns}, job)
    answers = Answers()
    answers.keep("a1", "k", model="m", messages=[{"role": "user", "content": "Ill?"}], text="Yes.")
    feedback.give(home, answers, "k", {"answer_id": "a1", "thumb": 1})
    update(home, "policies", sources / "documents", job="0002", who="me")
    files.write_json(home.reports / "0003.json", {"accuracy": 1})
    with files.replacing_folder(home.models / "tuned") as draft:
        (draft / "adapter_config.json").write_text("{}")
        (draft / "adapter_model.safetensors").write_bytes(random.Random(1).randbytes(3 << 20))
    sha256 = files.sha256_folder(home.models / "tuned")
    made = Model(name="tuned", kind="adapter", path=home.models / "tuned", sha256=sha256, size=1)
    registry.add(home, made, who="test")


def flip(path: Path, chance: random.Random) -> tuple[bytes, int]:
    """Flip one bit of a file; what it held, and where."""
    held = path.read_bytes()
    place, spoilt = chance.randrange(len(held)), bytearray(held)
    spoilt[place] ^= 1 << chance.randrange(8)
    path.write_bytes(spoilt)
    return held, place


def flips_in_a_sealed_home(folder: Path, count: int) -> tuple[int, int]:
    """How many of `count` flips were noticed, and how many changed nothing of what is read."""
    home, master = sealed_home(folder / "home")
    chance = random.Random(5)
    with unlocked(home, master):
        filled(home, folder / "sources")
        stored = [
            path
            for area in sorted(vaulted.AREAS)
            for path in sorted((home.path / area).rglob("*"))
            if path.is_file() and not vaulted.is_open(path.relative_to(home.path))
        ]
        assert {path.relative_to(home.path).parts[0] for path in stored} >= vaulted.AREAS - {
            "routes",
            "keys",
            "tls",
            "bundles",
            "federations",
        }
        plain = {path: reading.read_bytes(path) for path in stored}
        found = same = 0
        for _ in range(count):
            path = chance.choice(stored)
            held, place = flip(path, chance)
            try:
                same += reading.read_bytes(path) == plain[path]
                assert place < LENGTH, "content is never given out unverified"
            except SealBroken as problem:
                found += path.relative_to(home.path).as_posix() in problem.message and bool(problem.hint)
            path.write_bytes(held)
    return found, same


def test_every_flip_in_a_sealed_home_is_named_or_harmless(tmp_path: Path) -> None:
    found, same = flips_in_a_sealed_home(tmp_path, 300)
    assert found + same == 300 and found > 100  # most of a header is room for another


def flips_in_a_plain_home(folder: Path, count: int, change: Callable[[], None] = lambda: None) -> int:
    home, chance, found = open_home(folder / "home"), random.Random(6), 0
    filled(home, folder / "sources")
    change()
    splits = [home.datasets / "letters" / "v1" / f"{split}.jsonl" for split in store.SPLITS]
    stored = [*splits, *sorted((home.models / "tuned").iterdir())]
    for _ in range(count):
        path = chance.choice(stored)
        held, _ = flip(path, chance)
        with suppress(DataRejected, ModelRejected):
            try:
                for split in store.SPLITS:
                    store.read(store.get(home, "letters"), split)
                registry.intact(home, "tuned")
            except ApplianceError as problem:
                name = "letters" if path in splits else "tuned"
                found += name in problem.message and bool(problem.hint)
                raise
        path.write_bytes(held)
    return found


def test_every_flip_in_what_has_a_hash_is_named(tmp_path: Path) -> None:
    assert flips_in_a_plain_home(tmp_path, 60) == 60


@pytest.mark.soak
def test_ten_thousand_flips_are_noticed(tmp_path: Path) -> None:
    found, same = flips_in_a_sealed_home(tmp_path / "sealed", 9000)
    plain = flips_in_a_plain_home(tmp_path / "plain", 1000)
    print(f"10,000 flips: {found + plain} noticed and named, {same} changed nothing")  # noqa: T201
    assert (found + same, plain) == (9000, 1000)


def test_without_the_hash_flips_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind() -> None:
        monkeypatch.setattr(registry, "intact", lambda home, name: [])

    assert flips_in_a_plain_home(tmp_path, 40, blind) < 40
