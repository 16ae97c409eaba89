"""What has to be there before a key is used."""

from pathlib import Path

from loramend.cli.errors import CommandError


def check_sign_key(key: Path) -> None:
    """Raises CommandError `not_installed`, SigningError `signing_key_invalid`."""
    from loramend.signing.keys import check_private_key

    check_can_sign()
    check_private_key(key)


def check_can_sign() -> None:
    """Raises CommandError `not_installed`."""
    from loramend.signing.keys import is_installed

    if not is_installed():
        raise CommandError("not_installed", "signing and verifying need: pip install 'loramend[sign]'")
