"""Known vulnerabilities of everything installed: `make audit`.

Fails where there are any. What could not be looked up is said; without a network that is everything, and no
failure.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_NO_NETWORK = ("ConnectionError", "ProxyError", "Timeout", "SSLError")


def main(tool: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [tool, "--path", sysconfig.get_paths()["purelib"], "--skip-editable"]
        command += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - no shell, our own words
        text = report.read_text() if report.exists() else ""
    if text:
        return summary(json.loads(text)["dependencies"])
    last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    offline = any(name in done.stderr for name in _NO_NETWORK)
    sys.stdout.write(f"audit: {'skipped, no network' if offline else 'failed'}: {last}\n")
    return 0 if offline else 1


def summary(packages: list[dict[str, object]]) -> int:
    """Prints what was found; 1 where a package has a known vulnerability."""
    flaws = 0
    for package in packages:
        found = package.get("vulns", [])
        assert isinstance(found, list)
        for flaw in found:
            fixed = ", ".join(flaw["fix_versions"]) or "none yet"
            sys.stdout.write(
                f"audit: {package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}\n"
            )
        flaws += len(found)
    looked_up = sum("vulns" in package for package in packages)
    sys.stdout.write(f"audit: {looked_up} of {len(packages)} packages looked up, {flaws} vulnerabilities\n")
    return 1 if flaws else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
