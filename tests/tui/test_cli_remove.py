"""cloister model remove: what goes, what is refused, what a kill leaves; and names that mean something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import app_site as a
import pytest

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.models import importing, registry, removal
from appliance.models.registry import Model
from appliance.security import audit
from appliance.serve import route_changes
from tui.cli.entry import run

FILE = "lora-0002-q4_k_m"


@pytest.fixture
def site(home: Home) -> Home:
    """A base, its adapter and a GGUF file of that, with a report that lets it be served."""
    a.models(home)
    for name in ("demo-base", "lora-0002"):
        (home.models / name).mkdir()
        (home.models / name / "model.safetensors").write_bytes(b"w" * 100)
    folder = home.models / FILE
    folder.mkdir()
    (folder / f"{FILE}.gguf").write_bytes(b"GGUF" * 75_000)
    (folder / f"{FILE}.proof.json").write_text("{}")
    with transaction(home) as link:
        link.execute("UPDATE models SET path = ? WHERE name = ?", (str(folder / f"{FILE}.gguf"), FILE))
        link.execute(
            "INSERT INTO reports (model, dataset, created, job, passed, path)"
            " VALUES (?, 'd@1', '', '', 1, '')",
            (FILE,),
        )
    return home


def names(home: Home) -> list[str]:
    return sorted(model.name for model in registry.models(home))


def test_a_model_goes_with_its_files_and_verdicts(site: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "remove", FILE]) == 2  # nobody can be asked
    said = capsys.readouterr()
    assert f"{FILE} (gguf, sha256" in said.out and "2 files, 0.3 MB" in said.out
    assert "Its reports (1) will let no model" in said.out
    assert "Add --yes" in said.err and FILE in names(site)
    assert run(["model", "remove", FILE, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": FILE, "removed": True, "files": 2, "size": 300_002}
    assert names(site) == ["demo-base", "lora-0002"]
    assert sorted(path.name for path in site.models.iterdir()) == ["demo-base", "lora-0002"]
    with reading(site) as link:
        assert link.execute("SELECT COUNT(*) FROM reports").fetchone()[0] == 0
        (entry,) = audit.tail(link, 1)
    assert (entry["what"], entry["target"], entry["kind"]) == ("model.remove", FILE, "gguf")
    assert run(["model", "remove", FILE, "--yes"]) == 3


def test_what_others_were_made_from_stays(site: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "remove", "lora-0002", "--yes"]) == 2
    said = capsys.readouterr().err
    assert f"{FILE} was made from lora-0002" in said and f"cloister model remove {FILE}" in said
    with pytest.raises(ConfigWrong):  # also when it was made after the look
        removal.remove(site, registry.get(site, "lora-0002"), who="t")
    assert len(names(site)) == 3 and (site.models / "lora-0002" / "model.safetensors").exists()


def test_what_a_route_leads_to_stays(site: Home, capsys: pytest.CaptureFixture[str]) -> None:
    other = site.models / "other.gguf"
    registry.add(site, Model(name="other", kind="gguf", path=other, sha256="1", size=1), who="t")
    route_changes.make_split(site, "both", a=FILE, b="other", share=0.5, difference=0.1, who="t")
    assert run(["model", "remove", "other", "--yes"]) == 2
    assert "The route both leads to other." in capsys.readouterr().err
    route_changes.remove(site, "both", who="t")
    assert run(["model", "remove", "other", "--yes"]) == 0


def test_files_that_lie_elsewhere_stay(
    site: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = tmp_path / "far.gguf"
    far.write_bytes(b"GGUF")
    registry.add(site, Model(name="far", kind="gguf", path=far, sha256="1", size=4), who="t")
    assert run(["model", "remove", "far", "--yes"]) == 0
    assert "outside of the site's models" in " ".join(capsys.readouterr().out.split())
    assert far.exists() and "far" not in names(site)


def test_what_a_job_uses_stays(site: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that trains on it by its name; an endpoint by what it says it serves."""
    folder = a.job(site, "evaluate", "evaluate it", process=a.me())
    write_json(folder / "spec.json", {"spec": {"models": ["demo-base", FILE]}})
    a.tell(folder, "started", kind="evaluate")
    assert run(["model", "remove", FILE, "--yes"]) == 9
    said = capsys.readouterr().err
    assert f"uses {FILE}" in said and "cloister job stop" in said
    a.tell(folder, "done", result={})
    served = a.job(site, "serve", "serve lora-0002", process=a.me())
    write_json(served / "spec.json", {"spec": {"models": ["lora-0002"]}})
    a.tell(served, "started", kind="serve")
    assert run(["model", "remove", FILE, "--yes"]) == 9  # it may be what the adapter stands for
    a.tell(served, "ready", url="http://127.0.0.1:1", models=[FILE])
    a.tell(served, "progress", stage="serving", done=0, total=1, names=[FILE])
    assert run(["model", "remove", FILE, "--yes"]) == 9
    a.tell(served, "progress", stage="serving", done=0, total=1, names=["other"])
    a.tell(served, "ready", url="http://127.0.0.1:1", models=["other"])
    assert run(["model", "remove", FILE, "--yes"]) == 0


KILLED = """
    import os
    from pathlib import Path
    from appliance.core.home import open_home
    from appliance.models import registry, removal
    from appliance.security import audit

    home = open_home(Path({home!r}))
    {kill}
    removal.remove(home, registry.get(home, {name!r}), who="t")
"""


@pytest.mark.parametrize(
    ("kill", "left"),
    [
        ("audit.record = lambda *a, **b: os._exit(9)", True),
        ("removal.Path.rename = lambda *a: os._exit(9)", False),
        ("removal.shutil.rmtree = lambda path, **b: path.exists() and os._exit(9)", False),
    ],
)
def test_a_kill_leaves_all_of_it_or_nothing_to_see(site: Home, tmp_path: Path, kill: str, left: bool) -> None:
    code = textwrap.dedent(KILLED.format(home=str(site.path), name=FILE, kill=kill))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == 9
    assert (FILE in names(site)) is left
    if left:
        assert (site.models / FILE / f"{FILE}.gguf").exists()
    with reading(site) as link:
        whats = [entry["what"] for entry in audit.tail(link, 20)]
    assert ("model.remove" in whats) is not left
    removal.sweep(site)  # as whoever imports or removes next does
    there = sorted(path.name for path in site.models.iterdir())
    assert there == sorted(["demo-base", "lora-0002", *([FILE] if left else [])])
    if left:
        assert len(list((site.models / FILE).iterdir())) == 2


def test_an_import_begins_with_what_a_kill_left(site: Home, tmp_path: Path) -> None:
    (site.models / ".removing-gone").touch()
    (site.models / "gone").mkdir()
    (site.models / "gone" / "gone.proof.json").write_text("{}")
    (tmp_path / "new.gguf").write_bytes(b"GGUF")
    importing.import_gguf(site, tmp_path / "new.gguf", "gone", check=lambda path: {}, who="t")
    assert [path.name for path in (site.models / "gone").iterdir()] == ["gone.gguf"]


def test_nothing_is_named_like_a_word_of_the_command_line(
    site: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["model", "import", "demo", "--name", "status"]) == 2
    assert "Nothing can be named status" in capsys.readouterr().err
    with pytest.raises(ConfigWrong):
        registry.add(site, Model(name="status", kind="gguf", path=tmp_path, sha256="1", size=1), who="t")
    with pytest.raises(ConfigWrong, match="status"):
        route_changes.check_new(site, "status", FILE, "lora-0002")
    assert run(["serve", "status"]) == 0
