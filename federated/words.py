"""What the codes of refusals mean, in words for people: cause, then what to do.

Codes come from a site (policy.py), from the gate (admit.py), from the gateway and from Flower. Nothing that
another machine wrote is shown: a code that is not known here is shown as such.
"""

from __future__ import annotations

import re

from federated import admit, policy

_SITE = "ask the site; it decides"
_NEXT = {
    "base": "import the agreed base at the site",
    "versions": "install the agreed versions at the site",
    "task": "import the site's records with the agreed task and labels",
    "unit": "import the site's records with the agreed unit",
    "budget": "the site's privacy officer may raise its budget; nobody else can",
    "agreement": "sites that must agree to it anew need new kits",
    "disk": "free some space at the site; nothing else is to do",
    "failed": "at the site: cloister job tail, with --log",
    "paused": "at the site: cloister federate resume",
    "ended": "make a new federation",
}
_PROTOCOL = "look at the coordinator's version; a coordinator that keeps to the protocol does not ask so"
_OTHERS = {
    "unopened": ("the round's sum could not be opened", "nothing; the next round goes on from its adapter"),
    "dealt-wrong": ("its shares do not fit its keys", "look at the code that the site runs; drop it"),
    "shares": ("shares it revealed are not those it was dealt", "look at the code that the site runs"),
    "secagg-too-few": ("the sum would be of fewer sites than the site allows", _SITE),
    "secagg-low-threshold": ("too few sites could open the sum", _PROTOCOL),
    "secagg-wrong-sites": ("the sites named are not those of the agreement, or not all of them", _PROTOCOL),
    "secagg-forged": ("a key or share that its site did not sign", "look at who is between the sites"),
    "secagg-repeated": ("the attempt was answered before", "nothing; the round is begun anew"),
    "secagg-other-plan": ("the attempt is not the one that the site gave its key for", _PROTOCOL),
    "secagg-other-model": ("the round begins with another adapter or settings", "look at the versions"),
    "secagg-misdirected": ("a message for another site or federation", _PROTOCOL),
    "secagg-malformed": ("a message of another form", "look at the versions"),
    "secagg-bad-round": ("it is not about the vector that the site sent last", "nothing; it is begun anew"),
    "late": ("it did not answer by the deadline", "look at the site: cloister federate status there"),
    "out": ("it was dropped while the round ran", "nothing; the round goes on without it"),
    "behind": ("it asked for the whole adapter", "nothing; it gets it"),
    "certificate": ("a caller without a certificate", "look at who calls the gateway's port"),
    "unknown-certificate": ("a certificate that the agreement does not name", "look for an older kit"),
    "left": ("a site that has left", "stop its job there"),
    "dropped": ("a site that was dropped", "stop its job there"),
    "revoked": ("keys that were revoked", "look at who has them"),
    "verb": ("a call that no site makes", "look at who calls the gateway's port"),
    "node-key": ("a certificate with another site's node key", "revoke it, if it was stolen"),
    "rate": ("more calls than a site makes", "look at the site"),
    "size": ("a message of more than 16 MB", "look at the site"),
    "clock-ahead": (
        "the site's clock is ahead of the coordinator's by more than 4 s",
        "set the site's clock",
    ),
    "clock-behind": ("the site's clock is more than 300 s behind the coordinator's", "set the site's clock"),
    "expired": ("the site's certificate has expired", "enrol the site anew; the coordinator makes a new kit"),
    "gateway-expired": ("the gateway's certificate has expired", "the coordinator makes a new federation"),
    "other-gateway": (
        "what answers as the gateway has no certificate of this federation",
        "look at the address and what stands in between",
    ),
    "turned-away": ("the gateway ended the call", "ask the coordinator; there may be a newer kit"),
    "not-in": ("the gateway does not let this site in", "call the coordinator"),
    "unreachable": ("the other side does not answer", "look at the network, and whether it runs there"),
}


def why(code: str) -> tuple[str, str]:
    """(cause, next step) of a code."""
    if code in _OTHERS:
        return _OTHERS[code]
    for known, said in policy.WORDS.items():
        if known == code:
            return said, _NEXT.get(code, _SITE)
    for name, pair in admit.WORDS.items():
        if name == code:
            return pair
    if re.fullmatch(r"flower-[0-9]{1,6}", code):
        return "the link lost the site's answer", "nothing; it is asked again"
    return f"a code that is not known here ({re.sub(r'[^a-z0-9-]', '?', code[:40])})", "look at its version"
