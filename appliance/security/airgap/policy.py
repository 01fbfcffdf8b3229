"""Whether this site's jobs must run in a jail. They must, unless somebody said otherwise, which is audited.

`off` stands in a file that names its entry in the audit log. A file without the entry, or with an entry
that a later one has undone, counts for nothing.
"""

from __future__ import annotations

import json

from appliance.core.db import reading, transaction
from appliance.core.errors import ConfigWrong
from appliance.core.files import write_json
from appliance.core.home import Home
from appliance.security import audit
from appliance.security.people import guard

REQUIRED, OFF = "required", "off"
TARGET = "jobs"
_WHAT = "airgap.policy"


def policy(home: Home) -> str:
    """REQUIRED or OFF."""
    try:
        seq = int(json.loads((home.path / "airgap.json").read_bytes())["audit"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return REQUIRED
    with reading(home) as link:
        rows = link.execute("SELECT entry FROM audit WHERE seq >= ? ORDER BY seq", (seq,))
        entries = [json.loads(row["entry"]) for row in rows if _WHAT in row["entry"]]
    said = [entry for entry in entries if entry.get("what") == _WHAT]
    return OFF if said and said[-1].get("jail") == OFF else REQUIRED


def set_policy(home: Home, jail: str, *, who: str, because: str) -> None:
    """Say whether jobs must run in the jail, and why.

    Raises:
        ConfigWrong: it is neither REQUIRED nor OFF, or there is no reason.
        NotAllowed: OFF, and two people have not agreed to it, at a site that has people.
    """
    if jail not in (REQUIRED, OFF):
        raise ConfigWrong(f"There is no policy called {jail}.", f"Choose {REQUIRED} or {OFF}.")
    if jail == OFF and not because.strip():
        raise ConfigWrong("Jobs without a jail need a reason.", 'Add --because "...".')
    with transaction(home) as link:
        if jail == OFF:
            guard.spend(link, home, who, "airgap.off", TARGET, content=shown(because))
        audit.record(link, who=who, what=_WHAT, target=TARGET, jail=jail, because=because.strip())
        seq = link.execute("SELECT MAX(seq) FROM audit").fetchone()[0]
    write_json(home.path / "airgap.json", {"jail": jail, "audit": seq})


def shown(because: str) -> dict[str, str]:
    """What two people agree to."""
    return {"jail": OFF, "because": because.strip()}
