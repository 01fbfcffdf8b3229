"""Installs from a wheelhouse: no index, no network, nothing whose SHA-256 is not in its lock.

The wheelhouse (packaging/wheelhouse.py makes it) brings this file with it; written for any Python 3.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import edge
from steps import LOG, CannotInstall, check_python, check_room, make_venv, pip, say

SUMS, LOCK, SBOM, FACTS = "SHA256SUMS", "requirements.lock", "SBOM.cdx.json", "wheelhouse.json"
UNFINISHED = ".installing"
# Instructions that a compiler may use when it builds for the processor at hand.
CPU_FLAGS = re.compile(
    r"(sse|ssse|avx|amx|fma|f16c|bmi|abm|adx|sha_ni|gfni|vaes|vpclmul|movbe|asimd|sve|i8mm|bf16)"
)
AGAIN = "Take the wheelhouse anew from where it was made, and compare its fingerprint."
OUTSIDE = {"PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}


def install(folder, venv):
    """Install the wheelhouse in `folder` into a new environment `venv`; an unfinished one is begun anew."""
    check_python()
    facts = read_facts(folder)
    check_machine(facts)
    say(f"wheelhouse {folder}, fingerprint {fingerprint(folder)}")
    check_files(folder)
    if (venv / "bin" / "python").exists():
        if not (venv / UNFINISHED).exists():
            raise CannotInstall(
                f"{venv} holds an installation already.",
                "Move it away, or choose another folder: sh install.sh DIR",
            )
        shutil.rmtree(venv)
    check_room(venv, 4 * sum(wheel.stat().st_size for wheel in (folder / "wheels").iterdir()))
    small = facts["profile"] == "edge"
    make_venv(venv, *(["--without-pip"] if small else []))
    (venv / UNFINISHED).touch()
    tools = venv
    if small:
        tools = venv / ".tools"
        make_venv(tools)
    say(f"installing the packages; log: {tools / LOG}")
    put(folder, venv, tools, compiled=not small)
    edge.share_copies(edge.packages(venv) / "llama_cpp" / "lib")
    if small:
        edge.slim(venv)
        edge.finish(venv, tools)
    else:
        edge.seal(venv)
    for name in (LOCK, SBOM):
        shutil.copyfile(str(folder / name), str(venv / name))
    if small:
        shutil.rmtree(tools)
    (venv / ".installed-{}".format(facts["profile"])).touch()
    (venv / UNFINISHED).unlink()
    say("done: {}".format(venv / "bin" / "cloister"))


def check(folder, venv):
    """Hold the installation `venv` against the wheelhouse, by the code of the wheelhouse."""
    say(f"wheelhouse {folder}, fingerprint {fingerprint(folder)}")
    check_files(folder)
    wheels = sorted((folder / "wheels").glob("*.whl"))
    sys.path.insert(0, str(next(wheel for wheel in wheels if wheel.name.startswith("cloister-"))))
    from appliance.security.supply import against

    small = read_facts(folder)["profile"] == "edge"
    checked = against.compare(wheels, edge.packages(venv), edge.DROPPED + edge.UNUSED if small else ())
    for one in checked.findings:
        say(f"{one.what}  {one.path}: {one.why}")
    if checked.findings:
        raise CannotInstall(
            f"{len(checked.findings)} files of {venv} are not what the wheelhouse brings.",
            "Install again, into an empty folder.",
        )
    say(f"{checked.files} files of {venv} are what the wheelhouse brings ({checked.seconds:.1f} s).")


def put(folder, venv, tools, compiled):
    """Have pip install exactly what the lock lists; it checks every hash itself."""
    words = ["install", "--no-index", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    words += [] if compiled else ["--no-compile"]
    words += ["--find-links", str(folder / "wheels"), "--requirement", str(folder / LOCK)]
    pip(tools, "--isolated", "--no-cache-dir", "--python", str(venv / "bin" / "python"), *words, **OUTSIDE)


def check_files(folder):
    """Every file of the wheelhouse is there and is the one that it was made with; names the first other."""
    hashed = {}
    for line in read(folder, SUMS).splitlines():
        sha256, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            raise CannotInstall(f"{name} is missing from the wheelhouse.", AGAIN)
        if edge.sha256(file) != sha256:
            raise CannotInstall(f"{name} is not the file that the wheelhouse was made with.", AGAIN)
        hashed[sha256] = name
    locked = set()
    for line in read(folder, LOCK).splitlines():
        package, _, sha256 = line.partition(" --hash=sha256:")
        if not line.startswith("#") and sha256 not in hashed:
            raise CannotInstall(f"The wheel of {package} is missing from the wheelhouse.", AGAIN)
        locked.add(hashed.get(sha256))
    for wheel in sorted((folder / "wheels").iterdir()):
        if f"wheels/{wheel.name}" not in locked:  # `check` runs code of a wheel that it finds by name
            raise CannotInstall(f"{wheel.name} is none of the wheelhouse's own.", AGAIN)


def check_machine(facts):
    """The wheels are for one Python and one kind of machine."""
    found = describe_machine()
    for what, word in (("python", "Python"), ("machine", "machines of the kind")):
        if facts[what] != found[what]:
            raise CannotInstall(
                f"This wheelhouse is for {word} {facts[what]}; here is {found[what]}.",
                "Use that, or make a wheelhouse on a machine like this one: make wheelhouse",
            )
    lacking = sorted(set(facts["cpu"]) - set(found["cpu"]))
    if numbers(facts["glibc"]) > numbers(found["glibc"]):
        lacking.append("glibc " + facts["glibc"])
    if lacking:
        raise CannotInstall(
            "This wheelhouse was built for a newer machine; here is no {}.".format(", ".join(lacking)),
            "Make it on a machine like this one, or on an older one: make wheelhouse",
        )


def describe_machine():
    """What wheels built here need: Python, kind of machine, C library, the processor's instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), []
    )
    return {
        "python": "{}.{}".format(*sys.version_info[:2]),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "cpu": sorted(flag for flag in set(flags) if CPU_FLAGS.match(flag)),
    }


def numbers(version):
    """A version as numbers, to compare."""
    return [int(part) for part in re.findall(r"\d+", version)]


def read_facts(folder):
    """What wheelhouse.json says."""
    try:
        return json.loads(read(folder, FACTS))
    except ValueError:
        raise CannotInstall(f"{folder / FACTS} cannot be read.", AGAIN) from None


def read(folder, name):
    """The text of one file of the wheelhouse."""
    try:
        return (folder / name).read_text()
    except (OSError, UnicodeDecodeError):
        raise CannotInstall(f"{folder} is no wheelhouse: it has no {name}.", AGAIN) from None


def fingerprint(folder):
    """What stands for the whole wheelhouse: the SHA-256 of its list of checksums, in groups of eight."""
    digest = hashlib.sha256(read(folder, SUMS).encode()).hexdigest()
    return " ".join(digest[start : start + 8] for start in range(0, 64, 8))
