"""What an audit says and whether it fails."""

import pytest

from scripts.audit import summary


def test_a_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    flaw = {"id": "CVE-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    packages: list[dict[str, object]] = [
        {"name": "sound", "version": "1.0", "vulns": []},
        {"name": "broken", "version": "1.0", "vulns": [flaw]},
    ]
    assert summary(packages) == 1
    assert "broken 1.0: CVE-2026-1, fixed in 2.0" in capsys.readouterr().out


def test_what_was_not_looked_up_does_not_count_as_sound(capsys: pytest.CaptureFixture[str]) -> None:
    packages: list[dict[str, object]] = [
        {"name": "sound", "version": "1.0", "vulns": []},
        {"name": "unknown", "skip_reason": "not found on PyPI"},
    ]
    assert summary(packages) == 0
    assert "1 of 2 packages looked up, 0 vulnerabilities" in capsys.readouterr().out
