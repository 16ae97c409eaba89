"""Keys that sign and verify: EC keys in PEM, as `openssl` makes them."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from loramend.contracts.errors import SigningError

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def is_installed() -> bool:
    """Whether what signs and verifies is there; nothing is imported."""
    return all(find_spec(name) is not None for name in ("model_signing", "OpenSSL"))


def check_private_key(file: Path) -> None:
    """Raises SigningError where the file is no private key that can sign."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(file)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise SigningError(
            "signing_key_invalid",
            "The signing key is protected by a password; give one without (`openssl pkey -in KEY -out NEW`).",
        ) from None
    except Exception:
        raise SigningError(
            "signing_key_invalid", "The signing key is no private key in PEM (BEGIN PRIVATE KEY)."
        ) from None
    _check_curve(key.public_key())


def public_key_id(file: Path) -> str:
    """sha256 of the public key in PEM, as signatures name it.

    Raises SigningError where the file is no public key that can verify.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _content(file)
    if b"PRIVATE KEY-" in content:
        raise SigningError(
            "signing_key_invalid",
            "The key to verify with is a private one; give its public half (`openssl pkey -in KEY -pubout`).",
        )
    try:
        key = load_pem_public_key(content)
    except Exception:
        raise SigningError(
            "signing_key_invalid", "The key to verify with is no public key in PEM (BEGIN PUBLIC KEY)."
        ) from None
    return _check_curve(key)


def _check_curve(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SigningError(
            "signing_key_invalid",
            f"Signatures take an elliptic-curve key on {', '.join(CURVES.values())}; this is another kind.",
        )
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SigningError(
            "signing_key_invalid", f"The key's file cannot be read: {error.strerror or 'it is no file'}."
        ) from None
