"""The key of a federation's authority: in the home, or under a passphrase in a file that is kept elsewhere.

The file: canonical JSON {v, what, cost, salt, nonce, box}; box is the key (PEM) under Argon2id and
AES-256-GCM, with all the rest authenticated. Whoever has the key can make certificates; the gateway takes
only those that the signed agreement names as well, so the key alone opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.core.errors import ConfigWrong, NotAllowed, NotFound
from appliance.core.files import write_private
from appliance.core.reading import read_bytes
from appliance.security import canonical
from appliance.security.passphrase import Cost, calibrated, check_new, new_salt, read_cost, stretch
from federated import pki
from federated.place import Place

_WHAT, _NONCE, _LONGEST = "cloister federation authority", 12, 1 << 16
Asked = Callable[[], str]


def keep(place: Place, key: pki.Key, file: Path | None, passphrase: str) -> None:
    """Write the key of a new authority into the home, or sealed into `file`.

    Raises:
        ConfigWrong: the file is there, or the passphrase is easy to guess.
    """
    if file is None:
        write_private(place.authority_key, pki.key_pem(key))
        return
    if file.exists():
        raise ConfigWrong(f"{file} is there already.", "Choose another file: a key is never written over.")
    check_new(passphrase)
    write_private(file, sealed(pki.key_pem(key), passphrase, calibrated()))


def sealed(content: bytes, passphrase: str, cost: Cost) -> bytes:
    """The file of a key."""
    salt, nonce = new_salt(), os.urandom(_NONCE)
    head = {"v": 1, "what": _WHAT, "cost": cost.to_json(), "salt": salt.hex(), "nonce": nonce.hex()}
    box = AESGCM(stretch(passphrase, salt=salt, cost=cost)).encrypt(nonce, content, canonical.encode(head))
    return canonical.encode({**head, "box": box.hex()}) + b"\n"


def key_of(place: Place, file: Path | None, asked: Asked) -> pki.Key:
    """The authority's key; `asked` gives the passphrase of a file.

    Raises:
        NotFound: it is not here, so its file is needed. NotAllowed: another passphrase.
        ConfigWrong: it is damaged, or another authority's.
    """
    if file is None and not place.authority_key.exists():
        raise NotFound(
            "The key of the federation's authority is kept elsewhere.",
            "Bring its file: add --authority FILE.",
        )
    content = read_bytes(place.authority_key) if file is None else _unsealed(file, asked())
    try:
        key = load_pem_private_key(content, None)
        root = x509.load_pem_x509_certificate((place.pki / "ca.crt").read_bytes())
    except ValueError as problem:
        raise ConfigWrong("The authority's key is damaged.", "Take its copy.") from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
        raise ConfigWrong(
            "This is the key of another authority.", "Take the file that was made with this federation."
        )
    return key


def root_of(place: Place) -> x509.Certificate:
    """The authority's certificate.

    Raises:
        ConfigWrong: it is damaged.
    """
    try:
        return x509.load_pem_x509_certificate((place.pki / "ca.crt").read_bytes())
    except (OSError, ValueError) as problem:
        raise ConfigWrong("link/pki/ca.crt is damaged.", "Restore the home from its backup.") from problem


def _unsealed(file: Path, passphrase: str) -> bytes:
    try:
        with file.open("rb") as stream:
            held = canonical.decode(stream.read(_LONGEST).removesuffix(b"\n"))
        head = {name: value for name, value in held.items() if name != "box"}
        if head["v"] != 1 or head["what"] != _WHAT:
            raise ValueError("another file")
        key = stretch(passphrase, salt=bytes.fromhex(head["salt"]), cost=read_cost(head["cost"]))
        box = bytes.fromhex(held["box"])
        return AESGCM(key).decrypt(bytes.fromhex(head["nonce"]), box, canonical.encode(head))
    except OSError as problem:
        raise NotFound(f"{file} cannot be read: {problem.strerror}.", "Bring the right medium.") from None
    except InvalidTag:
        raise NotAllowed(
            "This is not the passphrase of that key.", "Type it again; the file was not changed."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigWrong(f"{file} holds no authority's key.", "Name the file that init wrote.") from problem
