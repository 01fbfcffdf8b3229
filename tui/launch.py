"""The `cloister` command: stay offline before anything is imported, then CLI or TUI."""

from __future__ import annotations

import os
import sys

from appliance.core.offline import stay_offline


def main() -> None:
    """Without arguments on a terminal the TUI, else the CLI (which opens the TUI for a bare --home)."""
    os.umask(0o077)
    stay_offline()
    if len(sys.argv) == 1 and on_terminal():
        from tui.app import run as run_screens

        run_screens()
        return
    from tui.cli.entry import run

    sys.exit(run(sys.argv[1:]))


def on_terminal() -> bool:
    """Whether a person sits there."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


if __name__ == "__main__":
    main()
