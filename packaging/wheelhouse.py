"""Makes a wheelhouse, to install from without a network: `python3 packaging/wheelhouse.py DIR [edge|site]`.

Run on a machine with a network, of the same kind as those that it is for. What is in it is told in
appliance/security/supply/wheelhouse.py. The same wheels give the same bytes in every other file.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import edge
import install
import offline
from steps import CannotInstall, check_python, make_venv, pip, say

sys.path.insert(1, str(install.ROOT))
from appliance.security.supply import sbom
from appliance.security.supply.records import normal

PROFILES = ("edge", "site")
CARRIED = ("install.py", "offline.py", "edge.py", "steps.py")
EPOCH = "315532800"  # 1980-01-01, the earliest that a wheel can hold
SCRIPT = """#!/bin/sh
# Installs Cloister from this folder, without a network: sh install.sh DIR
# Compares an installation with this folder:             sh install.sh DIR --check
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python3}" -I "$here/install.py" "${1:-/opt/cloister}" --from "$here" ${2:+"$2"}
"""


def main(target, profile):
    """Make the wheelhouse `target` for `profile`; an older one there is replaced."""
    if profile not in PROFILES:
        raise CannotInstall(f"There is no profile {profile}.", f"Choose one of {', '.join(PROFILES)}.")
    if target.exists() and not (target / offline.SUMS).exists():
        raise CannotInstall(f"{target} is there and is no wheelhouse.", "Choose another folder.")
    check_python()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheelhouse-", dir=target.parent) as work:
        tools, draft = Path(work) / "tools", Path(work) / "draft"
        (draft / "wheels").mkdir(parents=True)
        draft.chmod(0o755)
        make_venv(tools)
        gather(tools, draft / "wheels", profile)
        describe(draft, profile)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    say(f"{target}: {len(list((target / 'wheels').iterdir()))} wheels, {size / 1e6:.0f} MB")
    say(f"fingerprint {offline.fingerprint(target)}")


def gather(tools, wheels, profile):
    """Every wheel that the profile needs: downloaded, or built where there is none."""
    llama = install.llama_wheel(tools)
    say(f"gathering the packages of the profile {profile}; this takes a minute or more")
    own = str(install.ROOT) if profile == "edge" else f"{install.ROOT}[{profile}]"
    epoch = os.environ.get("SOURCE_DATE_EPOCH", EPOCH)
    with edge.outside_the_source() as environment:
        words = ["wheel", "--wheel-dir", str(wheels), str(llama), own]
        pip(tools, *words, SOURCE_DATE_EPOCH=epoch, **environment)


def describe(folder, profile):
    """Write all that is made from the wheels: lock, SBOM, facts, installer, checksums."""
    parts = sorted(
        sbom.of_wheels(sorted((folder / "wheels").glob("*.whl"))), key=lambda part: normal(part.name)
    )
    facts = {"v": 1, "profile": profile, **offline.describe_machine()}
    lock = [f"# Cloister, profile {profile}, Python {facts['python']}, {facts['machine']}"]
    lock += [f"{normal(part.name)}=={part.version} --hash=sha256:{part.sha256}" for part in parts]
    (folder / offline.LOCK).write_text("\n".join(lock) + "\n")
    (folder / offline.SBOM).write_bytes(sbom.as_bytes(sbom.bom(parts, profile=profile)))
    (folder / offline.FACTS).write_text(json.dumps(facts, sort_keys=True) + "\n")
    (folder / "install.sh").write_text(SCRIPT)
    for name in CARRIED:
        shutil.copyfile(install.ROOT / "packaging" / name, folder / name)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    lines = [f"{edge.sha256(folder / name)}  {name}\n" for name in names if name != offline.SUMS]
    (folder / offline.SUMS).write_text("".join(lines))


if __name__ == "__main__":
    install.told(lambda words: main(Path(words[0]).absolute(), words[1] if len(words) > 1 else "edge"))
