"""The one error of this room: what was refused, why in a word, and whose fault it is."""

from __future__ import annotations

from appliance.core.errors import ApplianceError


class Refused(ApplianceError):
    """A message or request of secure aggregation that is not answered.

    `reason` is one word or two and part of the code; `site` names the site at fault, or is empty where that
    is the coordinator or nobody. Neither says anything of a record, so the code may leave the site.
    """

    code = "secagg-refused"
    exit_code = 12

    def __init__(self, message: str, hint: str = "", *, reason: str, site: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.site = site
        self.code = f"secagg-{reason}"
