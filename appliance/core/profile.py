"""Whether this is an installation that trains (profile "site") or one that only serves ("edge")."""

from __future__ import annotations

from importlib.util import find_spec

from appliance.core.errors import lacking

_SITE = ("torch", "transformers", "peft")  # what every job that computes with a base model imports


def has_site() -> bool:
    """Whether the packages of the site profile are there. Nothing is imported for it."""
    return _missing() is None


def check_site() -> None:
    """Refuse what only the site profile can do, before any of it is done.

    Raises:
        ConfigWrong: a package of that profile is missing; the error names it.
    """
    if (name := _missing()) is not None:
        raise lacking(ModuleNotFoundError(name=name))


def _missing() -> str | None:
    return next((name for name in _SITE if not _is_there(name)), None)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: it stands in sys.modules without a spec
        return False
