"""Every way to alter an installation is named; an unaltered one passes."""

from __future__ import annotations

import asyncio
import os
import py_compile
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import supply_support as s

from appliance.core.db import reading
from appliance.core.errors import InstallationAltered
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.supply import baseline
from appliance.security.supply.installed import check
from appliance.security.supply.records import packages_in, read_rows, write_rows
from appliance.security.supply.seal import seal
from appliance.serve import job as serve_job


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supply")
    return s.make_environment(folder, s.make_wheelhouse(folder / "house"))


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Path:
    return s.copied(installed, tmp_path / "env")


def found(place: Path) -> list[tuple[str, str]]:
    return [(one.what, one.path) for one in check(place).findings]


def test_what_pip_installed_passes(place: Path) -> None:
    checked = check(place)
    assert checked.intact and checked.packages == 2 and not checked.sealed and checked.editable == ()
    assert checked.unproven == 3  # pip compiles, and writes no hash of it
    assert checked.files > 10 and checked.size > 500


def test_an_altered_file_is_named_though_its_size_and_time_are_the_old_ones(place: Path) -> None:
    file = place / "tinyapp" / "__init__.py"
    before = file.stat()
    file.write_bytes(b"VALUE = 9\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(place) == [("altered", "tinyapp/__init__.py")]


def test_missing_files_and_commands_are_named(place: Path) -> None:
    (place / "tinyapp" / "page.html").unlink()
    (place.parents[2] / "bin" / "run-cloister").write_text("#!/bin/sh\n")
    assert found(place) == [("altered", "../../../bin/run-cloister"), ("missing", "tinyapp/page.html")]


@pytest.mark.parametrize(
    "name", ["evil.pth", "sitecustomize.py", "tinyapp/json.so", "tinyapp/new/x.py", "a.pyc"]
)
def test_a_file_that_no_package_brought_is_named(place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(b"import os\n")
    assert found(place) == [("added", name)]


def test_links_are_no_files(place: Path, tmp_path: Path) -> None:
    (place / "tinylib.py").rename(tmp_path / "kept.py")
    (place / "tinylib.py").symlink_to(tmp_path / "kept.py")  # the right content, for now
    (tmp_path / "more").mkdir()
    (place / "more").symlink_to(tmp_path / "more")
    assert found(place) == [("added", "more"), ("altered", "tinylib.py")]


def test_a_record_without_a_hash_or_out_of_the_environment_proves_nothing(place: Path) -> None:
    record = next(place.glob("tiny_lib*/RECORD"))
    rows = record.read_text().splitlines()
    rows = ["tinylib.py,," if row.startswith("tinylib.py") else row for row in rows]
    record.write_text("\n".join([*rows, "../../../../outside,sha256=AAAA,1"]) + "\n")
    (place / "tinylib.py").write_bytes(b"evil\n")
    assert {path for what, path in found(place) if what == "unrecorded"} == {
        "tinylib.py",
        "../../../../outside",
    }
    record.write_text("not, a RECORD\n")
    assert ("unrecorded", record.parent.name) in found(place)
    record.unlink()
    assert ("unrecorded", record.parent.name) in found(place)


def test_weak_hashes_prove_nothing(place: Path) -> None:
    record = next(place.glob("tiny_lib*/RECORD"))
    text = record.read_text().replace("tinylib.py,sha256=", "tinylib.py,md5=")
    record.write_text(text)
    assert ("unrecorded", "tinylib.py") in found(place)


def test_a_file_that_two_packages_bring_may_be_either(place: Path) -> None:
    record = next(place.glob("cloister-*/RECORD"))
    record.write_text(record.read_text() + f"tinylib.py,sha256={s.encoded(b'the other')},9\n")
    assert found(place) == []
    (place / "tinylib.py").write_bytes(b"neither")
    assert found(place) == [("altered", "tinylib.py")]


def test_compiled_files_without_a_listed_source_or_a_look_at_it_are_named(
    place: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text("VALUE = 'evil'\n")
    cache = place / "tinyapp" / "__pycache__"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    name = f"__init__.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(evil), str(cache / name), doraise=True, invalidation_mode=unchecked)
    py_compile.compile(str(evil), str(cache / f"ghost.{sys.implementation.cache_tag}.pyc"), doraise=True)
    py_compile.compile(str(evil), str(place / "tinyapp" / "bare.pyc"), doraise=True)
    names = {path.rpartition("/")[2].partition(".")[0] for _, path in found(place)}
    assert names == {"__init__", "ghost", "bare"}


def test_sealed_compiled_files_are_held_to_their_hash(place: Path, tmp_path: Path) -> None:
    assert seal(place) == 3
    checked = check(place)
    assert checked.intact and checked.sealed and checked.unproven == 0
    file = next(place.glob("__pycache__/tinylib.*.pyc"))
    header = file.read_bytes()[:16]  # the source's time and size: Python would run it
    evil = tmp_path / "evil.py"
    evil.write_text("def answer():\n    return 13\n")
    py_compile.compile(str(evil), str(file), doraise=True)
    file.write_bytes(header + file.read_bytes()[16:])
    (file.parent / file.name.replace(".pyc", ".opt-1.pyc")).write_bytes(b"later")
    assert [what for what, path in found(place) if "tinylib" in path] == ["added", "altered"]


def test_sealing_takes_what_was_left_out_and_refuses_what_was_altered(place: Path) -> None:
    (place / "tinyapp" / "page.html").unlink()
    seal(place)
    assert found(place) == []
    (place / "tinylib.py").write_text("evil")
    with pytest.raises(InstallationAltered, match=r"tinylib\.py"):
        seal(place)


def test_an_editable_package_is_named_and_does_not_fail(place: Path) -> None:
    folder = next(place.glob("tiny_lib*"))
    note = b'{"dir_info": {"editable": true}, "url": "file:///src"}'
    (folder / "direct_url.json").write_bytes(note)
    record = folder / "RECORD"
    row = f"{folder.name}/direct_url.json,sha256={s.encoded(note)},{len(note)}\n"
    lines = [line for line in record.read_text().splitlines(keepends=True) if "direct_url" not in line]
    record.write_text("".join(lines) + row)
    checked = check(place)
    assert checked.intact and checked.editable == ("tiny_lib",)


def test_a_record_reads_as_it_was_written(place: Path) -> None:
    for package in packages_in(place):
        text = (package.folder / "RECORD").read_text()
        assert write_rows(read_rows(text)) == text
    for wrong in ("a,b\n", ",sha256=AA,1\n", "a,sha256=!!,1\n", "a,sha256=AA,x\n"):
        with pytest.raises(ValueError):
            read_rows(wrong)


def test_a_file_and_its_record_altered_together_are_found_by_what_was_recorded(
    home: Home, place: Path
) -> None:
    assert baseline.compare(home, place) == ("none", [])
    digest = baseline.record(home, who="mira", place=place)
    assert baseline.compare(home, place) == ("same", [])
    s.rewrite(place, "tinylib.py", b"def answer():\n    return 13\n")
    assert check(place).intact  # the RECORD says so
    state, findings = baseline.compare(home, place)
    assert state == "changed" and [one.path for one in findings] == ["tiny_lib-1.0+local.1.dist-info/RECORD"]
    (home.path / "installed.json").write_text("{}")  # nor does it help to alter the list that names it
    state, findings = baseline.compare(home, place)
    assert state == "changed" and len(findings) == 1
    assert baseline.compare(home, place, kept=digest)[0] == "changed"
    with reading(home) as link:
        assert audit.tail(link, 1)[0]["digest"] == digest


def test_the_settings_of_the_environment_are_recorded(home: Home, place: Path) -> None:
    baseline.record(home, who="mira", place=place)
    settings = place.parents[2] / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("false", "true"))  # the system's packages too
    assert [one.path for one in baseline.compare(home, place)[1]] == ["pyvenv.cfg"]


def test_an_altered_installation_is_not_recorded_and_the_store_of_the_caller_is_in_the_transaction(
    home: Home, place: Path
) -> None:
    def fails(link: Any, where: str, digest: str) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        baseline.record(home, who="mira", place=place, keep=fails)
    (place / "x.pth").write_text("import os")
    with pytest.raises(InstallationAltered, match=r"x\.pth is added"):
        baseline.record(home, who="mira", place=place)
    assert baseline.recorded(home, place) is None and not (home.path / "installed.json").exists()


def test_at_start_an_altered_installation_is_refused_and_audited(
    home: Home, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "here", lambda: place)
    (place / "x.pth").write_text("import os")
    assert baseline.check_at_start(home, who="mira") is None  # a source folder: held to nothing
    (place / "x.pth").unlink()
    seal(place)
    checked = baseline.check_at_start(home, who="mira")
    assert checked is not None and checked.intact
    (place / "x.pth").write_text("import os")
    with pytest.raises(InstallationAltered) as problem:
        baseline.check_at_start(home, who="mira")
    assert "x.pth is added" in problem.value.message and "supply check" in problem.value.hint
    with reading(home) as link:
        entry = audit.tail(link, 1)[0]
    assert (entry["what"], entry["count"], entry["first"]) == ("supply.changed", 1, ["added x.pth"])


def test_taking_the_seal_off_does_not_end_the_check_of_a_recorded_installation(
    home: Home, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "here", lambda: place)
    seal(place)
    baseline.record(home, who="mira", place=place)
    for package in packages_in(place):
        rows = [row for row in package.rows or () if not row.compiled]
        (package.folder / "RECORD").write_text(write_rows(rows))
    with pytest.raises(InstallationAltered, match="RECORD is altered"):
        baseline.check_at_start(home, who="mira")


def test_an_endpoint_answers_nothing_before_the_check_has_passed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> None:
        loaded.append(True)

    def altered(home: Home, *, who: str) -> None:
        raise InstallationAltered("The installation was changed: x is added.")

    loaded: list[bool] = []
    endpoint: Any = SimpleNamespace(house=SimpleNamespace(start=start), embedder=None)
    running = serve_job._Running({"model": "x"}, SimpleNamespace(home=home, who="mira"), endpoint, None)  # type: ignore[arg-type]
    monkeypatch.setattr(serve_job, "check_at_start", altered)
    with pytest.raises(InstallationAltered):
        asyncio.run(running._start())
    assert loaded == [True]
