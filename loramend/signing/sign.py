"""Signing a repaired adapter's folder in the OpenSSF Model Signing format, with a key and offline."""

from collections.abc import Callable, Iterable
from pathlib import Path

from loramend.contracts.files import SIGNATURE
from loramend.signing.keys import check_private_key

# What programs put beside a model that they fetch; nothing of it is read with the adapter.
_OTHERS = (".cache/huggingface",)


def sign_folder(folder: Path, key: Path, *, name: str) -> None:
    """Sign every file of `folder` with a private EC key in PEM, into `model.sig` there.

    The signature is a Sigstore bundle without certificates or logs: an in-toto statement of each file's
    sha256 in a DSSE envelope. `name` is the statement's subject and informative only.

    Raises SigningError `signing_key_invalid`.
    """
    check_private_key(key)
    from model_signing import hashing, manifest, signing

    class Named(hashing.Config):
        """The library takes the name from the folder, which here is a temporary one."""

        def hash(
            self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
        ) -> manifest.Manifest:
            found = super().hash(model_path, files_to_hash=files_to_hash)
            kind = manifest.SerializationType.from_args(found.serialization_type)
            items = [kind.new_item(each.identifier, each.digest) for each in found.resource_descriptors()]
            return manifest.Manifest(name, items, kind)

    # The library's constructors carry no annotations.
    to_hash: Callable[[], hashing.Config] = Named
    to_sign: Callable[[], signing.Config] = signing.Config
    hashed = to_hash().set_ignored_paths(paths=[SIGNATURE, *_OTHERS])
    signer = to_sign().set_hashing_config(hashed).use_elliptic_key_signer(private_key=key)
    signer.sign(folder, folder / SIGNATURE)
