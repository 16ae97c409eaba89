"""A signed result, and everything that can be done to it on its way."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from model_signing import hashing, signing

from benchmarks.faults.adapters import make_adapter
from loramend.adapter.read import read_adapter
from loramend.contracts.errors import SigningError
from loramend.contracts.steps import ShrinkStep
from loramend.contracts.verification import Verification
from loramend.reference.open import open_references
from loramend.repair import repair
from loramend.result import write_result
from loramend.signing.keys import public_key_id
from loramend.signing.sign import sign_folder
from loramend.signing.verify import verify_folder
from tests.signing.keys import make_key, secret_of


class Keys(NamedTuple):
    private: Path
    public: Path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(*make_key(tmp_path_factory.mktemp("keys"), "signer"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    root = tmp_path_factory.mktemp("signed")
    adapter = make_adapter(root / "adapter")
    return signed(adapter, keys, root / "out")


def signed(adapter: Path, keys: Keys, out: Path) -> Path:
    """The adapter repaired and signed."""
    with open_references(None, None) as references:
        repaired, report = repair(read_adapter(adapter), [ShrinkStep()], references)
    write_result(repaired, report, adapter, out)
    sign_folder(out, keys.private, name="out")
    return out


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "out"))


def codes(found: Verification) -> set[tuple[str, str | None]]:
    return {(each.code, each.path) for each in found.problems}


def edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


FILES = [
    "adapter_config.json", "adapter_model.safetensors", "README.md", "bom.cdx.json", "report.html",
    "report.json", "report.sarif", "original/adapter_config.json", "original/adapter_model.safetensors",
]  # fmt: skip


def test_what_was_signed_is_verified_under_any_name(out: Path, keys: Keys) -> None:
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *FILES,
        "model.sig",
    }
    moved = out.rename(out.parent / "elsewhere")
    found = verify_folder(moved, keys.public)
    assert (found.verdict, found.problems, found.signed) == ("verified", [], True)
    assert found.key is not None
    assert "9 files" in found.verified[0]
    bundle = json.loads((moved / "model.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    assert statement["subject"][0]["name"] == "out"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_and_a_missing_one(out: Path, keys: Keys, name: str) -> None:
    with (out / name).open("ab") as file:
        file.write(b" ")
    found = verify_folder(out, keys.public)
    assert found.verdict == "failed"
    assert ("file_changed", name) in codes(found)
    (out / name).unlink()
    assert ("file_missing", name) in codes(verify_folder(out, keys.public))


def test_an_added_file(out: Path, keys: Keys) -> None:
    (out / "adapter_model.bin").write_bytes(b"pickled")
    assert codes(verify_folder(out, keys.public)) == {("file_added", "adapter_model.bin")}
    without = verify_folder(out, None)
    assert without.verdict == "unproven"
    assert any("adapter_model.bin" in line for line in without.not_verified)


def test_what_git_and_the_hubs_client_put_there_is_told_and_no_fault(out: Path, keys: Keys) -> None:
    (out / ".gitattributes").write_text("*.safetensors filter=lfs")
    (out / ".cache" / "huggingface").mkdir(parents=True)
    (out / ".cache" / "huggingface" / "x.metadata").write_text("1")
    found = verify_folder(out, keys.public)
    assert found.verdict == "verified"
    assert any(".gitattributes" in line for line in found.not_verified)


def test_a_link_is_refused(out: Path, keys: Keys) -> None:
    weights = out / "adapter_model.safetensors"
    weights.rename(out.parent / "weights")
    weights.symlink_to(out.parent / "weights")
    for key in (keys.public, None):
        found = verify_folder(out, key)
        assert found.verdict == "failed"
        assert ("not_a_file", "adapter_model.safetensors") in codes(found)


def test_without_a_signature(out: Path, keys: Keys) -> None:
    (out / "model.sig").unlink()
    assert codes(verify_folder(out, keys.public)) == {("signature_missing", "model.sig")}
    found = verify_folder(out, None)
    assert (found.verdict, found.signed, found.key) == ("unproven", False, None)
    assert "there is no signature" in found.not_verified[0]


def test_a_signature_that_nobody_checked_proves_nothing(out: Path) -> None:
    found = verify_folder(out, None)
    assert (found.verdict, found.signed) == ("unproven", True)
    assert "no key was given" in found.not_verified[0]


def test_another_key(out: Path, keys: Keys, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "other", "P-384")
    found = verify_folder(out, public)
    assert codes(found) == {("key_differs", "model.sig")}
    # Signed anew by the other key, and made to name the first.
    sign_folder(out, private, name="out")
    assert verify_folder(out, public).verdict == "verified"

    def lie(bundle: Any) -> None:
        bundle["verificationMaterial"]["publicKey"]["hint"] = public_key_id(keys.public)

    edit(out / "model.sig", lie)
    assert codes(verify_folder(out, keys.public)) == {("signature_invalid", "model.sig")}
    # One that names no key at all.
    edit(out / "model.sig", lambda bundle: bundle["verificationMaterial"]["publicKey"].pop("hint"))
    assert codes(verify_folder(out, keys.public)) == {("signature_invalid", "model.sig")}


def test_a_signature_of_another_result(out: Path, keys: Keys, tmp_path: Path) -> None:
    second = signed(make_adapter(tmp_path / "other", modules=3), keys, tmp_path / "second")
    shutil.copy(second / "model.sig", out / "model.sig")
    found = verify_folder(out, keys.public)
    assert ("signature_invalid", "model.sig") in codes(found)
    assert ("file_changed", "adapter_model.safetensors") in codes(found)
    assert "another folder" in found.problems[0].detail


def test_an_altered_statement(out: Path, keys: Keys) -> None:
    def alter(bundle: Any) -> None:
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(
            payload.replace(b"README.md", b"README.MD")
        ).decode()

    edit(out / "model.sig", alter)
    assert codes(verify_folder(out, keys.public)) == {("signature_invalid", "model.sig")}


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"dsseEnvelope": 1}'])
def test_what_is_no_signature(out: Path, keys: Keys, content: bytes) -> None:
    (out / "model.sig").write_bytes(content)
    assert codes(verify_folder(out, keys.public)) == {("signature_unreadable", "model.sig")}


def test_a_signature_by_other_means_must_cover_what_counts(out: Path, keys: Keys) -> None:
    config = hashing.Config().set_ignored_paths(paths=["model.sig", "adapter_model.safetensors"])
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=keys.private)
    signer.sign(out, out / "model.sig")
    assert codes(verify_folder(out, keys.public)) == {("file_not_signed", "adapter_model.safetensors")}


def first_digest(files: Any) -> None:
    files[0]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("report.json", lambda told: first_digest(told["output"]), "file_changed"),
        ("report.json", lambda told: first_digest(told["adapter"]["files"]), "file_changed"),
        ("report.json", lambda told: told.pop("totals"), "report_invalid"),
        ("report.json", lambda told: told.update(output=[]), "report_invalid"),
        ("bom.cdx.json", lambda told: told["metadata"]["component"]["components"].pop(), "bom_differs"),
        ("bom.cdx.json", lambda told: told["metadata"].pop("component"), "bom_differs"),
        (
            "bom.cdx.json",
            lambda told: told["metadata"]["component"]["pedigree"].pop("ancestors"),
            "bom_differs",
        ),
    ],
)
def test_records_that_disagree_are_found_without_a_key(
    out: Path, keys: Keys, name: str, change: Callable[[Any], None], code: str
) -> None:
    edit(out / name, change)
    found = verify_folder(out, None)
    assert found.verdict == "failed"
    assert code in {each.code for each in found.problems}
    # Whoever holds the key may sign nonsense; it is nonsense all the same.
    sign_folder(out, keys.private, name="out")
    assert verify_folder(out, keys.public).verdict == "failed"


def test_a_provenance_file_that_disagrees(out: Path) -> None:
    (out / "loramend.json").write_text('{"input": [], "output": []}')
    assert codes(verify_folder(out, None)) == {("provenance_differs", "loramend.json")}


def test_names_that_are_no_text_are_told_all_the_same(out: Path, keys: Keys) -> None:
    (out / "na\udcffme").write_text("")
    edit(out / "report.json", lambda told: told.update({"\udcff": 1}))
    for key in (keys.public, None):
        found = verify_folder(out, key)
        assert ("not_a_file", "na\\udcffme") in codes(found)
        assert "report_invalid" in {each.code for each in found.problems}
        assert found.model_dump_json()


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert codes(verify_folder(tmp_path, None)) == {("report_missing", "report.json")}


@pytest.mark.parametrize("kind", ["Ed25519", "a password", "nothing", "public", "missing"])
def test_keys_that_cannot_sign(out: Path, keys: Keys, tmp_path: Path, kind: str) -> None:
    private = tmp_path / "key"
    match kind:
        case "Ed25519":
            private, _ = make_key(tmp_path, "ed", "Ed25519")
        case "a password":
            private, _ = make_key(tmp_path, "locked", password="secret")
        case "nothing":
            private.write_text("no key")
        case "public":
            private = keys.public
    with pytest.raises(SigningError) as caught:
        sign_folder(out, private, name="out")
    assert caught.value.code == "signing_key_invalid"
    assert str(tmp_path) not in str(caught.value)


def test_keys_that_cannot_verify(out: Path, keys: Keys, tmp_path: Path) -> None:
    _, other_kind = make_key(tmp_path, "ed", "Ed25519")
    with pytest.raises(SigningError, match="P-256"):
        verify_folder(out, other_kind)
    with pytest.raises(SigningError, match="public half") as caught:
        verify_folder(out, keys.private)
    assert not any(line in str(caught.value) for line in secret_of(keys.private))
