"""Files that people have written out of the home: new ones only, each with its line in the log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from appliance.core.db import transaction
from appliance.core.errors import ConfigWrong
from appliance.core.home import Home
from appliance.core.sealing import place
from appliance.security import audit


def new_path(path: Path) -> Path:
    """The whole path of a file that can be made.

    Raises:
        ConfigWrong: it is there, or in a home, or its folder is not there.
    """
    path = path.expanduser().absolute()
    if path.exists() or place(path) is not None:
        raise ConfigWrong(f"{path} is there, or in the site's home.", "Choose another name.")
    if not path.parent.is_dir():
        raise ConfigWrong(f"There is no folder {path.parent}.", "Make it first, or choose another.")
    return path


def write_out(home: Home, path: Path, content: bytes, *, who: str, **told: Any) -> Path:
    """Write `path`, readable by this account alone, or nothing when it cannot be logged (`report.export`)."""
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(made, "wb") as stream:
            stream.write(content)
        with transaction(home) as link:
            audit.record(link, who=who, what="report.export", **told)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
