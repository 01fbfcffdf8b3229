"""The `cloister` command: stay offline before anything is imported, then CLI or TUI."""

from __future__ import annotations

import sys

from appliance.core.offline import stay_offline


def main() -> None:
    """Without arguments on a terminal the TUI, else the CLI."""
    stay_offline()
    if len(sys.argv) == 1 and all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        from tui.app import run

        run()
        return
    from tui.cli import app

    app()


if __name__ == "__main__":
    main()
