"""The `cloister` command: stay offline before anything is imported, then CLI or TUI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from appliance.core.offline import stay_offline

stay_offline()  # here, so that whatever is imported next finds it set


def main() -> None:
    """Without arguments on a terminal the TUI, else the CLI (which opens the TUI for a bare --home)."""
    from appliance.core.crash import say_no_words

    os.umask(0o077)
    say_no_words()
    write_no_bytecode_if_sealed()
    if len(sys.argv) == 1 and on_terminal():
        from tui.app import run as run_screens

        run_screens()
        return
    from tui.cli.entry import run

    sys.exit(run(sys.argv[1:]))


def write_no_bytecode_if_sealed() -> None:
    """A sealed installation (appliance/security/supply/seal.py) counts any compiled file as added."""
    if Path(sys.prefix, ".sealed").exists():
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the jobs


def on_terminal() -> bool:
    """Whether a person sits there."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


if __name__ == "__main__":
    main()
