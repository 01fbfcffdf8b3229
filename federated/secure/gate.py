"""The gate of masked vectors: all that can be seen of one without seeing into it.

Whose it is, its round and adapter, that it was not sent before, the site's count, the length, and that its
masks, parcels and weight are those of this attempt. Norm and numbers cannot be seen: the site's own software
sees to them (seat.py), and a site that does not is not found out. Robust rules are for such sites.
"""

from __future__ import annotations

from collections.abc import Mapping

from federated.admit import Admitted, Expected, Member, Refused, stated
from federated.description import Federation
from federated.secagg import coordinator
from federated.secagg import federation as members_of
from federated.secagg.context import Asked
from federated.secagg.lattice import Lattice
from federated.secagg.messages import PARCEL
from federated.secure import pinned
from federated.update import LONGEST_STATEMENT, whole

_HEADS = 1 << 18


def admit(
    content: bytes,
    expected: Expected,
    members: Mapping[str, Member],
    admitted: Mapping[str, str],
    *,
    agreement: Federation,
    federation: members_of.Federation,
    lattice: Lattice,
    asked: Asked,
) -> Admitted | Refused:
    """Whether `content` may be summed in the attempt that was `asked`."""
    longest = LONGEST_STATEMENT + _HEADS + lattice.values * lattice.bits // 8 + PARCEL * len(asked.cohort)
    if len(content) > longest:
        return Refused(code="malformed", site="")
    found = stated(content, expected, members, admitted)
    if isinstance(found, Refused):
        return found
    statement, body = found
    if not whole(statement, body):
        return Refused(code="body", site=statement.site)
    try:
        masked = coordinator.masked_of(federation, lattice, asked, statement.site, body)
    except coordinator.OtherRound:
        return Refused(code="round", site=statement.site)
    except ValueError:
        return Refused(code="masks", site=statement.site)
    if masked.weight != pinned.weight_of(agreement, statement.units):
        return Refused(code="units", site=statement.site)
    return Admitted(statement=statement, norm=None)
