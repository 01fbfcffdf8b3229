"""A wheelhouse installs by itself without a network, and any other byte in it stops the installation."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "appliance"))
import supply_support as s

from appliance.core.errors import DataRejected
from appliance.security.supply import against, sbom, wheelhouse
from appliance.security.supply.installed import check
from appliance.security.supply.seal import seal

UNITS = s.PACKAGING / "systemd"
APP_WHEEL = "cloister-0.0.1-py3-none-any.whl"
LIB_WHEEL = "tiny_lib-1.0+local.1-py3-none-any.whl"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return s.make_wheelhouse(tmp_path / "house")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def install(house: Path, venv: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["sh", str(house / "install.sh"), str(venv), *words]
    clean = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHON": sys.executable}
    return subprocess.run(argv, env=clean, capture_output=True, text=True, check=False)


def test_the_lock_has_every_wheel_with_its_version_and_hash(house: Path) -> None:
    locked = dict(wheelhouse.locked_wheels(house))
    assert list(locked) == ["cloister==0.0.1", "tiny-lib==1.0+local.1"]
    assert locked["cloister==0.0.1"] == s.offline.edge.sha256(house / "wheels" / APP_WHEEL)


def test_the_same_wheels_make_the_same_bytes(house: Path, tmp_path: Path) -> None:
    again = s.make_wheelhouse(tmp_path / "again")
    for file in (file for file in house.rglob("*") if file.is_file()):
        assert file.read_bytes() == (again / file.relative_to(house)).read_bytes(), file


@pytest.mark.parametrize("name", [APP_WHEEL, LIB_WHEEL])
def test_one_flipped_byte_in_a_wheel_stops_it_by_name_in_two_lines(
    house: Path, tmp_path: Path, name: str
) -> None:
    flip(house / "wheels" / name)
    done = install(house, tmp_path / "venv")
    error, hint = done.stderr.splitlines()
    assert done.returncode == 1 and hint.startswith("try: ")
    assert error == f"error: wheels/{name} is not the file that the wheelhouse was made with."
    assert not (tmp_path / "venv").exists()


def test_a_missing_wheel_or_another_installer_stops_it(house: Path, tmp_path: Path) -> None:
    (house / "wheels" / LIB_WHEEL).unlink()
    assert f"error: wheels/{LIB_WHEEL} is missing" in install(house, tmp_path / "venv").stderr
    sums = house / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if LIB_WHEEL not in line))
    assert "The wheel of tiny-lib==1.0+local.1 is missing" in install(house, tmp_path / "venv").stderr
    s.make_wheelhouse(house)
    flip(house / "requirements.lock")
    assert "requirements.lock is not the file" in install(house, tmp_path / "venv").stderr


def test_pip_checks_the_hashes_too(house: Path, tmp_path: Path) -> None:
    """Were our own look taken out, a flipped byte would still not get in; nor a package from elsewhere."""
    tools, venv = s.make_tools(tmp_path / "tools"), tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (house / "wheels" / LIB_WHEEL).write_bytes(
        s.make_wheel(tmp_path / "other", "tiny_lib", "1.0+local.1", {"tinylib.py": b"evil\n"}).read_bytes()
    )
    with pytest.raises(s.offline.CannotInstall, match="DO NOT MATCH THE HASHES"):
        s.offline.put(house, venv, tools, compiled=True)
    assert not list(venv.glob("lib/*/site-packages/tinylib.py"))


def test_another_machine_is_told_what_it_lacks(house: Path, tmp_path: Path) -> None:
    facts = json.loads((house / "wheelhouse.json").read_text())
    for changed, told in (
        ({"python": "3.99"}, "for Python 3.99; here is"),
        ({"machine": "riscv64"}, "machines of the kind riscv64"),
        ({"cpu": ["avx9"]}, "here is no avx9"),
        ({"glibc": "9.99"}, "here is no glibc 9.99"),
    ):
        (house / "wheelhouse.json").write_text(json.dumps(facts | changed))
        assert told in install(house, tmp_path / "venv").stderr


def test_a_folder_that_holds_an_installation_is_left_alone(house: Path, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    assert "holds an installation already" in install(house, tmp_path / "venv").stderr
    assert (tmp_path / "venv" / "bin" / "python").exists()


def test_the_stick_finds_what_the_installation_itself_cannot(house: Path, tmp_path: Path) -> None:
    place = s.make_environment(tmp_path, house)
    seal(place)
    wheels = sorted((house / "wheels").iterdir())
    assert against.compare(wheels, place).findings == ()
    s.rewrite(place, "tinylib.py", b"def answer():\n    return 13\n")
    rogue = place / "rogue.py"
    rogue.write_bytes(b"import os\n")
    record = next(place.glob("tiny_lib*/RECORD"))
    record.write_text(record.read_text() + f"rogue.py,sha256={s.encoded(rogue.read_bytes())},10\n")
    assert check(place).intact  # altered with its RECORD
    told = [(one.what, one.path) for one in against.compare(wheels, place).findings]
    assert told == [("added", "rogue.py"), ("altered", "tinylib.py")]
    (place / "tinyapp" / "page.html").unlink()
    told = [one.path for one in against.compare(wheels, place, ["tinyapp/**/*.html"]).findings]
    assert told == ["rogue.py", "tinylib.py"]
    assert "tinyapp/page.html" in [one.path for one in against.compare(wheels, place).findings]
    told = [(one.what, one.path) for one in against.compare(wheels[:1], place).findings]
    assert ("added", "tiny_lib-1.0+local.1.dist-info") in told and ("added", "tinylib.py") in told


def test_it_travels_under_plain_names_and_is_checked_on_arrival(house: Path, tmp_path: Path) -> None:
    items = wheelhouse.files(house)
    assert len(items) == 11 and items[0].path.name == "SHA256SUMS"
    plain = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,99}/){0,3}[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
    for item in items:
        assert plain.fullmatch(item.name), item.name
        assert (item.size, item.sha256) == (item.path.stat().st_size, s.offline.edge.sha256(item.path))
        (tmp_path / "arrived" / item.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.path, tmp_path / "arrived" / item.name)
    arrived = tmp_path / "arrived"
    assert [item.path.name for item in wheelhouse.settle(arrived)] == [item.path.name for item in items]
    assert (arrived / "wheels" / LIB_WHEEL).exists()
    (arrived / "wheels" / "extra.whl").touch()
    with pytest.raises(DataRejected, match=r"wheels/extra\.whl is not part"):
        wheelhouse.files(arrived)
    (arrived / "wheels" / "extra.whl").unlink()
    flip(arrived / "wheels" / APP_WHEEL)
    with pytest.raises(DataRejected, match=re.escape(APP_WHEEL)):
        wheelhouse.settle(arrived)


def test_a_list_of_checksums_names_files_of_the_wheelhouse_only(house: Path) -> None:
    sums = house / "SHA256SUMS"
    text = sums.read_text()
    for line in (f"{'0' * 64}  ../outside", f"{'0' * 64}  /etc/passwd", "words", text.splitlines()[0]):
        sums.write_text(text + line + "\n")
        with pytest.raises(DataRejected, match="no checksum"):
            wheelhouse.files(house)
    (house / "wheels" / LIB_WHEEL).unlink()
    (house / "wheels" / LIB_WHEEL).symlink_to("/etc/hostname")
    sums.write_text(text)
    with pytest.raises(DataRejected, match="missing"):
        wheelhouse.files(house)


def parts(folder: Path) -> list[sbom.Part]:
    old = "License: BSD 3-Clause License\n"
    long = f"License: {'x' * 80}\nClassifier: License :: OSI Approved :: MIT License\n"
    needs = ("Middle_Lib[fast]>=1", 'torch; extra == "site"', 'nowhere; sys_platform == "win32"')
    return sbom.of_wheels(
        [
            s.make_wheel(folder, "cloister", "0.0.1", {}, requires=needs, extra=""),
            s.make_wheel(
                folder,
                "middle.lib",
                "1.0",
                {},
                requires=('quick ; extra == "fast"', "slow; extra=='no'"),
                extra=old,
            ),
            s.make_wheel(folder, "quick", "2!1.0+cpu", {}, extra=long),
            s.make_wheel(folder, "slow", "3", {}),
            s.make_wheel(folder, "torch", "2", {}),
        ]
    )


def check_rules(document: dict[str, Any]) -> None:
    """What the schema of CycloneDX 1.6 asks of the parts that we write."""
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    allowed = {"$schema", "bomFormat", "specVersion", "version", "metadata", "components", "dependencies"}
    assert document.keys() <= allowed and document["metadata"].keys() <= {
        "timestamp",
        "component",
        "properties",
    }
    components = [document["metadata"]["component"], *document["components"]]
    for one in components:
        assert one.keys() <= {
            "type", "bom-ref", "name", "version", "purl", "description", "licenses", "hashes"
        }  # fmt: skip
        assert one["type"] in ("application", "library") and one["name"] and one["bom-ref"]
        assert re.fullmatch(r"pkg:[a-z]+/[a-z0-9-]+@[A-Za-z0-9.%_~-]+", one["purl"])
        licences = one.get("licenses", [])
        expressions = [licence for licence in licences if "expression" in licence]
        assert len(licences) == 1 if expressions else all(set(one["license"]) == {"name"} for one in licences)
        for held in one.get("hashes", []):
            assert held["alg"] == "SHA-256" and re.fullmatch(r"[0-9a-f]{64}", held["content"])
    refs = [one["bom-ref"] for one in components]
    assert len(set(refs)) == len(refs)
    assert sorted(one["ref"] for one in document["dependencies"]) == sorted(refs)
    for one in document["dependencies"]:
        assert set(one["dependsOn"]) <= set(refs) and len(set(one["dependsOn"])) == len(one["dependsOn"])


def test_the_sbom_follows_the_rules_and_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    made = parts(tmp_path)
    document = sbom.bom(made, profile="site")
    check_rules(document)
    assert sbom.as_bytes(document) == sbom.as_bytes(sbom.bom(made[::-1], profile="site"))
    assert "timestamp" not in document["metadata"] and "serialNumber" not in document
    graph = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert graph["pkg:generic/cloister@0.0.1"] == ["pkg:pypi/middle-lib@1.0", "pkg:pypi/torch@2"]
    assert graph["pkg:pypi/middle-lib@1.0"] == ["pkg:pypi/quick@2%211.0%2Bcpu"]  # the extra is asked for
    licences = {one["name"]: one.get("licenses") for one in document["components"]}
    assert licences["middle.lib"] == [{"license": {"name": "BSD 3-Clause License"}}]
    assert licences["quick"] == [{"license": {"name": "MIT License"}}]
    assert licences["slow"] == [{"expression": "MIT"}]
    edge = {one["ref"]: one["dependsOn"] for one in sbom.bom(made, profile="edge")["dependencies"]}
    assert edge["pkg:generic/cloister@0.0.1"] == ["pkg:pypi/middle-lib@1.0"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "315532800")
    check_rules(sbom.bom(made, profile="edge"))
    assert sbom.bom(made, profile="edge")["metadata"]["timestamp"] == "1980-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="twice"):
        sbom.bom([*made, made[1]], profile="edge")


def test_installed_and_wheelhouse_have_one_sbom(house: Path, tmp_path: Path) -> None:
    place = s.make_environment(tmp_path, house)
    known = dict(wheelhouse.locked_wheels(house))
    made = sbom.as_bytes(sbom.bom(sbom.of_installed(place, known), profile="edge"))
    assert made == (house / "SBOM.cdx.json").read_bytes()


def test_an_endpoint_waits_for_the_check_at_boot() -> None:
    def unit(name: str) -> configparser.ConfigParser:
        read = configparser.ConfigParser(strict=False, interpolation=None)
        read.optionxform = str  # type: ignore[assignment,method-assign]
        read.read_string((UNITS / name).read_text())
        return read

    serve, checks = unit("cloister-serve@.service")["Unit"], unit("cloister-check.service")["Service"]
    assert serve["Requires"] == "cloister-check.service" and "cloister-check.service" in serve["After"]
    assert checks["Type"] == "oneshot" and checks["ExecStart"].endswith("cloister supply check")
    assert checks["PrivateNetwork"] == "yes" and checks["ProtectSystem"] == "strict"
