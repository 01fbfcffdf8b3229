"""Installs Cloister into a virtual environment: `python3 packaging/install.py VENV [site|dev|edge]`.

`site` and `dev` run from this folder; `edge` is a copy that needs it no more, without torch (edge.py).
`install.py VENV --from WHEELHOUSE` installs a copy without a network, and with `--check` behind it compares
one with the wheelhouse (offline.py).
Checks what is needed first and says what to do when it is not there. llama-cpp-python is built from
its source package with llama-server in it (packaging/llama/server.cmake); the wheel is kept in the
user's cache, so that the next installation on this machine takes seconds. Run again, it goes on
where it stopped. CMAKE_ARGS of whoever installs come behind ours: with -DGGML_CUDA=ON both the library and
llama-server use a GPU. Written for any Python 3, so that an old one gets a message and not a traceback.
"""

import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a wheelhouse on a stick stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
import edge  # these lie beside this file, which is run as a script
import offline
from steps import LOG, CannotInstall, check_python, check_room, make_venv, pip, say

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("site", "dev", "edge")
LLAMA = "llama-cpp-python==0.3.36"
INJECTED = ROOT / "packaging" / "llama" / "server.cmake"
ROOM = {"build": 2_000_000_000, "site": 4_000_000_000, "dev": 4_000_000_000, "edge": 500_000_000}
FLAGS = (
    "-DCMAKE_PROJECT_llama.cpp_INCLUDE={injected} -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON"
    " -DLLAMA_TOOLS_INSTALL=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF"
    " -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT=sdist"
    " -DCMAKE_INSTALL_BINDIR=llama_cpp/bin -DCMAKE_INSTALL_LIBDIR=llama_cpp/lib"
    " -DCMAKE_INSTALL_INCLUDEDIR=llama_cpp/include -DCMAKE_INSTALL_RPATH=$ORIGIN/../lib"
)


def main(venv, profile):
    """Install `profile` (site, dev or edge) into `venv`."""
    if profile not in PROFILES:
        raise CannotInstall(f"There is no profile {profile}.", f"Choose one of {', '.join(PROFILES)}.")
    check_python()
    if profile == "edge":
        return install_edge(venv)
    if not (venv / "bin" / "python").exists():
        make_venv(venv)
    wheel = llama_wheel(venv)
    check_room(venv, ROOM[profile] if not (venv / "lib").exists() else ROOM["build"])
    say(f"installing the packages; this takes two to five minutes; log: {venv / LOG}")
    pip(venv, "install", str(wheel), "-e", f"{ROOT}[{profile}]")
    edge.share_copies(edge.packages(venv) / "llama_cpp" / "lib")
    (venv / f".installed-{profile}").touch()


def install_edge(venv):
    """Install the plain packages by the pip of a second environment, which does not stay."""
    tools = venv / ".tools"
    if not (venv / "bin" / "python").exists():
        make_venv(venv, "--without-pip")
    if not (tools / "bin" / "python").exists():
        make_venv(tools)
    wheel = llama_wheel(tools)
    check_room(venv, ROOM["edge"])
    say(f"installing the packages; this takes a minute or two; log: {tools / LOG}")
    target = ["--python", str(venv / "bin" / "python")]
    with edge.outside_the_source() as environment:
        packages = [*target, "install", "--no-compile", str(wheel), str(ROOT)]
        pip(tools, *packages, **environment)
        again = [*target, "install", "--no-compile", "--no-deps", "--force-reinstall", str(ROOT)]
        pip(tools, *again, **environment)  # the same version number may stand for newer source
    edge.share_copies(edge.packages(venv) / "llama_cpp" / "lib")
    edge.slim(venv)
    edge.finish(venv, tools)
    shutil.rmtree(tools)
    (venv / ".installed-edge").touch()


def check_compiler():
    """llama.cpp is C++."""
    missing = [
        tool for tool in (os.environ.get("CC", "gcc"), os.environ.get("CXX", "g++")) if not shutil.which(tool)
    ]
    if missing:
        raise CannotInstall(
            f"There is no C++ compiler ({', '.join(missing)} not found); llama.cpp is built on this machine.",
            "On Debian or Ubuntu: apt-get install gcc g++",
        )
    if "-DGGML_CUDA=ON" in asked_args() and not (os.environ.get("CUDACXX") or shutil.which("nvcc")):
        raise CannotInstall(
            "CMAKE_ARGS asks for CUDA, and there is no CUDA compiler (nvcc not found).",
            "Install NVIDIA's CUDA toolkit and put its bin folder on the PATH, or take -DGGML_CUDA=ON away.",
        )


def llama_wheel(venv):
    """The wheel of llama-cpp-python with llama-server, from the cache or built now."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "cloister" / "wheels" / build_key()
    found = sorted(cache.glob("llama_cpp_python-*.whl"))
    if found:
        return found[0]
    check_compiler()
    check_room(cache, ROOM["build"])
    say("building llama.cpp from source; this takes five to fifteen minutes, once per machine")
    say(f"log: {venv / LOG}")
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        pip(
            venv,
            "wheel",
            "--no-deps",
            "--no-cache-dir",
            "--no-binary",
            "llama-cpp-python",
            "-w",
            str(draft),
            LLAMA,
            CMAKE_ARGS=cmake_args(),
        )
        shutil.rmtree(cache, ignore_errors=True)
        draft.rename(cache)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return sorted(cache.glob("llama_cpp_python-*.whl"))[0]


def cmake_args():
    """Our flags, then those in CMAKE_ARGS: where both name one, theirs holds."""
    return " ".join([FLAGS.format(injected=INJECTED), *asked_args()])


def asked_args():
    """What CMAKE_ARGS asks for, word by word."""
    return os.environ.get("CMAKE_ARGS", "").split()


def build_key():
    """Changes when the version, the flags, theirs included, or the processor (the build is native) change."""
    parts = [
        LLAMA,
        FLAGS,
        *asked_args(),
        INJECTED.read_text(),
        platform.machine(),
        platform.libc_ver()[1],
        cpu_flags(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cpu_flags():
    """The processor's instruction sets, where Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def told(work):
    """Run `work(words of the command line)` and tell what is missing in two lines."""
    try:
        work(sys.argv[1:])
    except CannotInstall as problem:
        sys.stderr.write(f"error: {problem.args[0]}\ntry: {problem.args[1]}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; run it again to go on\n")
        sys.exit(130)


def chosen(words):
    """What the command line asks for."""
    venv = Path(words[0] if words else ".venv").absolute()
    if words[1:2] == ["--from"] and len(words) in (3, 4):
        step = offline.check if words[3:] == ["--check"] else offline.install
        step(Path(words[2]).absolute(), venv)
    else:
        main(venv, words[1] if len(words) > 1 else "site")


if __name__ == "__main__":
    told(chosen)
