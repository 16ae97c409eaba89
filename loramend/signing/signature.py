"""Whether a folder is what the holder of a key signed."""

import base64
import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from loramend.contracts.files import SIGNATURE
from loramend.contracts.verification import Finding
from loramend.signing.tree import Tree


def check_signature(tree: Tree, key: Path, key_id: str) -> tuple[list[Finding], dict[str, str] | None]:
    """What is wrong, and the digests that the signature covers, by path: None where anything is wrong.

    The library decides; what is read here beside it only says why it refused.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        named, signed = _read(tree)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return [_finding("signature_unreadable", "is no OpenSSF Model Signing signature")], None
    to_verify: Callable[[], verifying.Config] = verifying.Config  # which carries no annotations
    verifier = to_verify().use_elliptic_key_verifier(public_key=key)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints warnings, and stdout may carry our JSON
            verifier.verify(tree.folder, tree.folder / SIGNATURE)
    except InvalidSignature:
        return [_finding("signature_invalid", _foreign(named, key_id))], None
    except Exception as error:  # the library tells most of what it refuses by ValueError, not all
        if named is not None and named != key_id:
            return [_finding("key_differs", _foreign(named, key_id))], None
        found = list(_differences(tree, signed))
        return found or tree.odd or [_finding("signature_invalid", f"it is refused: {error}")], None
    return [], signed


def _foreign(named: str | None, key_id: str) -> str:
    if named is not None and named != key_id:
        return f"it was made with another key: it names {named[:16]}, the one given is {key_id[:16]}"
    return "the given key did not make it, or it was altered since"


def _read(tree: Tree) -> tuple[str | None, dict[str, str]]:
    """(the key that it says it was made with, digests by path), as the file says, unchecked."""
    bundle = tree.document(SIGNATURE)
    named = bundle["verificationMaterial"].get("publicKey", {}).get("hint")
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    digests = {str(each["name"]): str(each["digest"]) for each in statement["predicate"]["resources"]}
    return (str(named) if named else None), digests


def _differences(tree: Tree, signed: Mapping[str, str]) -> Iterator[Finding]:
    here = set(tree.files) - {SIGNATURE}
    same = {name for name in here & set(signed) if tree.sha256(name) == signed[name]}
    if 2 * len(same) < len(signed):
        detail = f"of the {len(signed)} files that it signs, {len(same)} are here: it may be another folder's"
        yield _finding("signature_invalid", detail)
    for name in sorted(here & set(signed) - same):
        yield Finding(code="file_changed", path=name, detail="not the bytes that were signed")
    for name in sorted(set(signed) - here):
        yield Finding(code="file_missing", path=name, detail="was signed and is not here")
    for name in sorted(here - set(signed)):
        if not unread(name):
            yield Finding(code="file_added", path=name, detail="is here and was not signed")


def unread(name: str) -> bool:
    """Whether a file is one of those that Git and the Hub's client put beside a model."""
    return name.startswith((".git/", ".github/", ".cache/huggingface/")) or name in (
        ".gitattributes",
        ".gitignore",
    )


def _finding(code: str, detail: str) -> Finding:
    return Finding.model_validate({"code": code, "path": SIGNATURE, "detail": detail})
