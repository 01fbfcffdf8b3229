"""The picture of a run: readable by a program at least, whole, and the same every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from appliance.train.curves import draw

PNG = b"\x89PNG\r\n\x1a\n"


def history(steps: int = 20, *, private: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        facts: dict[str, Any] = {"step": step, "loss": 3.5 - 0.05 * step, "clipped": 0.9 - 0.01 * step}
        facts["epsilon"] = 0.4 * step if private else None
        if step % 5 == 0:
            facts["validation_loss"] = 3.4 - 0.04 * step
        found.append(facts)
    return found


def test_the_picture_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw(history(), tmp_path / name, synthetic=True)
    one, two = (tmp_path / "one.png").read_bytes(), (tmp_path / "two.png").read_bytes()
    assert one == two and one.startswith(PNG) and len(one) > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_synthetic_records_and_privacy_are_to_be_seen(tmp_path: Path) -> None:
    sizes = {}
    for name, synthetic, private in (("a", True, True), ("b", False, True), ("c", False, False)):
        draw(history(private=private), tmp_path / name, synthetic=synthetic)
        content = (tmp_path / name).read_bytes()
        sizes[name] = (content, int.from_bytes(content[16:20]))
    assert sizes["a"][0] != sizes["b"][0], "the title says synthetic"
    assert sizes["b"][1] > sizes["c"][1], "a run without privacy has neither epsilon nor clipping"


def test_gaps_are_left_out(tmp_path: Path) -> None:
    steps = history(4)
    steps[1]["loss"] = None  # an empty batch, or a loss that was no number
    draw(steps, tmp_path / "some.png")
    draw(steps[:1], tmp_path / "one.png")
    draw([], tmp_path / "none.png")
    assert all(file.read_bytes().startswith(PNG) for file in tmp_path.iterdir())


def test_matplotlib_is_loaded_only_to_draw_and_opens_no_window(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, appliance.train.curves as curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        "curves.draw([], pathlib.Path(sys.argv[1]))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "none.png"], check=True)
