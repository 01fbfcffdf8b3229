"""The Flower app that a run names: three lines that import what is installed.

Flower sends the app's code to every site. Ours holds none: neither side runs what arrives (hub_link.py and
site_link.py take the tasks themselves), and a site answers only to this very file (agreement's `code.fab`).
"""

from __future__ import annotations

import hashlib
import warnings
from functools import cache

_FILES = {
    "pyproject.toml": b"""[project]
name = "cloister-rounds"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0,<1.42"]

[tool.flwr.app]
publisher = "cloister"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["cloister_rounds.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "cloister_rounds:server"
clientapp = "cloister_rounds:client"
""",
    "LICENSE": b"Part of Cloister, under its licence.\n",
    "cloister_rounds.py": b"""from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()
""",
}


@cache
def fab() -> bytes:
    """The app as Flower packs it; the same bytes everywhere."""
    from flwr.cli.build import build_fab_from_files

    with warnings.catch_warnings():  # of what Flower itself uses
        warnings.simplefilter("ignore", DeprecationWarning)
        return build_fab_from_files(_FILES)[0]


def fab_sha256() -> str:
    """Its hex digest."""
    return hashlib.sha256(fab()).hexdigest()
