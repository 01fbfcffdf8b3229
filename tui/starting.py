"""What is looked at before people work: the installation, and what a crash has left.

The screens and the endpoint hash every installed file at their start. The start of a job holds the packages'
own lists to what was recorded, which is cheap; where nothing was (a source folder) nothing is held to it.
"""

from __future__ import annotations

from contextlib import suppress

from appliance.core.errors import Busy, LogDamaged, NoRoom
from appliance.core.home import Home


def at_start(home: Home, *, who: str) -> None:
    """Check the whole installation, then clear away what was cut off.

    Raises:
        InstallationAltered: a file is not as it was installed.
    """
    from appliance.security.supply import baseline

    baseline.check_at_start(home, who=who)
    clear(home)


def before_long(home: Home, *, who: str) -> None:
    """Check what is installed as far as that takes no time; before a job.

    Raises:
        InstallationAltered: the packages' lists are not as they were recorded.
    """
    from appliance.security.supply import baseline

    baseline.check_lists(home, who=who)
    clear(home)


def clear(home: Home) -> None:
    """End or undo what a crash has cut off: imports of bundles, new keys, a log begun anew."""
    from appliance.security.bundle import importing
    from appliance.security.log import renewal
    from appliance.security.trust import rotation

    with suppress(LogDamaged, NoRoom, Busy):  # what cannot be cleared now waits; it harms nobody
        rotation.finish(home)
        renewal.finish(home)
        if importing.left_behind(home):
            importing.sweep(home)
