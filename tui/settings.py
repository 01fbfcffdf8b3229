"""What a person sets about the screens: one declaration gives the file, the form and the command.

The file belongs to the person's account, not to the site: `screens.toml` in the folder that
XDG_CONFIG_HOME names (`~/.config`), under `cloister`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from appliance.core.errors import ConfigWrong
from appliance.core.files import write_bytes
from tui.fields import Field, answers

SETTINGS = (
    Field(
        key="theme",
        title="Theme",
        help="dark, light, or contrast: blue and orange on black. Every state is a word as well.",
        kind="choice",
        default="dark",
        choices=("dark", "light", "contrast"),
    ),
    Field(
        key="plain",
        title="Plain characters",
        help="ASCII only, without boxes. auto: on the Linux console, or where CLOISTER_PLAIN=1 is set.",
        kind="choice",
        default="auto",
        choices=("auto", "always", "never"),
    ),
)
_LARGEST = 10_000  # bytes


def place() -> Path:
    """The file of the settings."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "cloister" / "screens.toml"


def read_settings(path: Path) -> dict[str, str]:
    """Every setting; the default of what the file does not name, or of all where there is none.

    Raises:
        ConfigWrong: the file is no TOML, or names what is no setting, or no value of one.
    """
    found = {field.key: field.default for field in SETTINGS}
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST).decode()
        given = tomllib.loads(text)
    except FileNotFoundError:
        return found
    except (OSError, ValueError):
        raise ConfigWrong(
            f"{path} cannot be read as settings.", f"Mend it, or remove it: rm {path}"
        ) from None
    return checked(found, given, path)


def checked(found: Mapping[str, str], given: Mapping[str, object], path: Path) -> dict[str, str]:
    """`found` with what was `given` over it. Raises ConfigWrong with everything that is wrong in it."""
    if strange := sorted(set(given) - set(found)):
        raise ConfigWrong(
            f"{path} names no setting of the screens: {', '.join(strange)[:200]}.",
            f"The settings are {', '.join(found)}.",
        )
    new = {**found, **{key: str(value) for key, value in given.items()}}
    answers(SETTINGS, new)
    return new


def write_settings(path: Path, settings: Mapping[str, str]) -> None:
    """Keep the settings. Raises ConfigWrong: the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, tomli_w.dumps(dict(settings)).encode())
    except OSError as problem:
        raise ConfigWrong(f"{path} cannot be written: {problem.strerror}.", "See who owns it.") from None
