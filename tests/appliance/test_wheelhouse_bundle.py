"""A wheelhouse in a bundle: from site to site, installed from where it arrived, a changed byte refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle_support as b
import pytest
import supply_support as s

from appliance.core.errors import BundleRefused, DataRejected, ModelRejected
from appliance.core.home import Home
from appliance.ops import receiving
from appliance.ops.exporting import gather_wheelhouse
from appliance.security.bundle.releasing import Request, export
from appliance.security.bundle.writing import bytes_source
from appliance.security.supply import wheelhouse


@pytest.fixture(autouse=True)
def _their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: float(b.NOW))
    monkeypatch.setattr("appliance.security.trust.clock.last_entries", lambda *parts: 0)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return s.make_wheelhouse(tmp_path / "house")


def sent(home: Home, house: Path, out: Path, *, signer: Any = b.CENTRE) -> Path:
    sources, facts = gather_wheelhouse(house)
    request = Request(sources=sources, facts=facts, receivers=(b.EDGE.receiver,))
    return export(home, request, out, identity=signer, who="joe", seconds=lambda: b.NOW).path


def bring(home: Home, path: Path) -> str:
    return receiving.receive(home, path, identity=b.EDGE, check_gguf=lambda path: {}, who="joe")[1]


def test_it_arrives_whole_and_is_installed_from(home: Home, house: Path, tmp_path: Path) -> None:
    b.pinned(home)
    path = sent(home, house, tmp_path / "w.clb")
    name = bring(home, path)
    place = home.wheelhouses / name
    assert name.startswith("wheelhouse-edge-")
    assert {one.name: one.sha256 for one in wheelhouse.files(place)} == {
        one.name: one.sha256 for one in wheelhouse.files(house)
    }
    assert sorted(file.name for file in (place / "wheels").iterdir()) == [
        "cloister-0.0.1-py3-none-any.whl",
        "tiny_lib-1.0+local.1-py3-none-any.whl",
    ]
    assert all(file.stat().st_nlink == 1 for file in place.rglob("*") if file.is_file())
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    s.offline.put(place, venv, s.make_tools(tmp_path / "tools"), compiled=True)  # pip: no index, hashes
    code = "import tinyapp, tinylib; print(tinyapp.VALUE, tinylib.answer())"
    done = subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "42"]
    with pytest.raises(BundleRefused) as problem:
        bring(home, path)
    assert problem.value.reason == "replayed"
    assert sent(home, place, tmp_path / "on.clb").is_file(), "it can be sent on"


def test_a_changed_byte_is_refused_wherever_it_is(home: Home, house: Path, tmp_path: Path) -> None:
    wheel = next((house / "wheels").glob("cloister*"))
    content = wheel.read_bytes()
    wheel.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataRejected, match="not the file"):
        gather_wheelhouse(house)
    wheel.write_bytes(content)
    (house / "more.py").write_text("evil")
    with pytest.raises(DataRejected, match="does not list it"):
        gather_wheelhouse(house)
    (house / "more.py").unlink()
    b.pinned(home)
    path = sent(home, house, tmp_path / "w.clb")
    whole = path.read_bytes()
    for at in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BundleRefused):
            bring(home, path)
    assert not home.wheelhouses.exists()


def test_a_signed_bundle_with_an_unsound_wheelhouse_is_not_settled(
    home: Home, house: Path, tmp_path: Path
) -> None:
    """Its signer may be trusted and its wheelhouse not be the one that was made."""
    b.pinned(home)
    sources, facts = gather_wheelhouse(house)
    wheel = next(one for one in sources if one.entry.path.startswith("wheels/cloister"))
    other = [
        bytes_source(b"other", wheel.entry.path, "package"),
        *(one for one in sources if one is not wheel),
    ]
    path = b.bundle(tmp_path / "w.clb", other, facts=facts, line="wheelhouse").path
    for _ in range(2):
        with pytest.raises(ModelRejected):
            bring(home, path)
    assert list(home.wheelhouses.iterdir()) == []
    more = [*sources, bytes_source(b"import os", "wheels/evil.py", "x")]
    with pytest.raises(ModelRejected, match="does not list"):
        bring(home, b.bundle(tmp_path / "m.clb", more, facts=facts, line="wheelhouse", seq=2).path)


def test_a_wheel_that_the_lock_does_not_list_is_refused(house: Path) -> None:
    wheelhouse.files(house)
    extra = house / "wheels" / "cloister-0.0.0-py3-none-any.whl"
    extra.write_bytes(b"evil")
    with pytest.raises(s.offline.CannotInstall, match="none of the wheelhouse's own"):
        s.offline.check_files(house)
    with (house / wheelhouse.SUMS).open("a") as stream:
        stream.write(f"{wheelhouse.sha256_file(extra)}  wheels/{extra.name}\n")
    with pytest.raises(DataRejected, match="does not list it"):
        wheelhouse.files(house)
    with pytest.raises(s.offline.CannotInstall, match="none of the wheelhouse's own"):
        s.offline.check_files(house)


def test_an_import_cut_off_is_gone_on_from(
    home: Home, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.pinned(home)
    path = sent(home, house, tmp_path / "w.clb")
    whole = receiving.importing.entered

    def die(*parts: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(receiving.importing, "entered", die)
    with pytest.raises(KeyboardInterrupt):
        bring(home, path)
    monkeypatch.setattr(receiving.importing, "entered", whole)
    name = bring(home, path)
    assert wheelhouse.files(home.wheelhouses / name)


def test_another_wheelhouse_in_its_place_is_not_taken_for_it(
    home: Home, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's name has 32 bits of the hash, which another signer can make come out the same."""
    b.pinned(home)
    other = s.make_wheelhouse(tmp_path / "other")
    with (other / wheelhouse.FACTS).open("a") as stream:
        stream.write(" ")
    sums = (other / wheelhouse.SUMS).read_text().splitlines()
    now = wheelhouse.sha256_file(other / wheelhouse.FACTS)
    sums = [f"{now}  {wheelhouse.FACTS}" if line.endswith(wheelhouse.FACTS) else line for line in sums]
    (other / wheelhouse.SUMS).write_text("\n".join(sums) + "\n")
    written = sent(home, house, tmp_path / "w.clb")
    digest = receiving.importing.look(written, b.EDGE, None).digest
    shutil.copytree(other, home.wheelhouses / f"wheelhouse-edge-{digest[:8]}")
    with pytest.raises(ModelRejected, match="not what this bundle holds"):
        bring(home, written)
    shutil.rmtree(home.wheelhouses)
    assert wheelhouse.files(home.wheelhouses / bring(home, written))


def test_only_who_releases_may_sign_one(home: Home, house: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused) as problem:
        sent(home, house, tmp_path / "w.clb", signer=b.OTHER)
    assert problem.value.reason == "wrong-kind"
    b.pinned(home, b.OTHER)
    sources, facts = gather_wheelhouse(house)
    with pytest.raises(BundleRefused) as problem:
        bring(home, b.bundle(tmp_path / "x.clb", list(sources), facts=facts, signer=b.OTHER).path)
    assert problem.value.reason == "wrong-kind"
    # What is run goes in no bundle of another kind.
    with pytest.raises(BundleRefused) as problem:
        b.bundle(tmp_path / "y.clb", [bytes_source(b"x", "install.py", "x")])
    assert problem.value.reason == "wrong-file"
    shutil.copytree(house, tmp_path / "linked")
    target = tmp_path / "linked" / "install.sh"
    os.link(target, tmp_path / "second")
    with pytest.raises(BundleRefused) as problem:
        gather_wheelhouse(tmp_path / "linked")
    assert problem.value.reason == "no-plain-file"
