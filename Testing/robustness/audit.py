"""Known faults of the installed packages: ``python -m Testing.robustness.audit [PIP_AUDIT]``.

pip-audit asks the index of Python packages.  Where there is no such service it leaves every package out, and
would seem to have found nothing: that is said here, and is neither a finding nor a pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

OPTIONS = ("--local", "--skip-editable", "--progress-spinner", "off", "--format", "json")
FOUND, NOT_AUDITED = 1, 0


def verdict(text: str, errors: str = "") -> tuple[int, list[str]]:
    """Exit status and the lines to print.

    Args:
        text: what pip-audit wrote, JSON, or nothing.
        errors: what it wrote on standard error.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = errors.strip().splitlines()[-1] if errors.strip() else "it wrote nothing"
        return NOT_AUDITED, [f"pip-audit: NOT audited, the service could not be asked: {reason}"]
    asked = [package for package in packages if "vulns" in package]
    left_out = [package["name"] for package in packages if "vulns" not in package]
    if not asked:
        return NOT_AUDITED, [
            f"pip-audit: NOT audited: none of {len(packages)} packages is known to the service that was "
            "asked; run it where PyPI can be reached"
        ]
    lines = [_line(package, fault) for package in asked for fault in package["vulns"]]
    without = f", {len(left_out)} unknown to the service: {', '.join(left_out)}" if left_out else ""
    lines.append(f"pip-audit: {len(asked)} packages audited, {len(lines)} known faults{without}")
    return (FOUND if len(lines) > 1 else 0), lines


def _line(package: dict[str, Any], fault: dict[str, Any]) -> str:
    mended = ", ".join(fault.get("fix_versions", [])) or "none yet"
    return f"  {package['name']} {package['version']}: {fault['id']}; mended in {mended}"


def main() -> int:
    """Run pip-audit and judge what it says."""
    program = sys.argv[1] if len(sys.argv) > 1 else "pip-audit"
    done = subprocess.run([program, *OPTIONS], capture_output=True, text=True)
    status, lines = verdict(done.stdout, done.stderr)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
