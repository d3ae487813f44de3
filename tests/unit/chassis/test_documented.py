"""docs/errors.md lists the reasons that the code gives, and no others."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("chassis", *(folder.name for folder in ROOT.glob("*_svc")))


def test_every_reason_is_listed_and_every_listed_reason_is_given() -> None:
    given = {
        reason
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for reason in re.findall(r'reason ?= ?"([A-Z_]+)"', path.read_text())
    }
    table = (ROOT / "docs" / "errors.md").read_text().partition("## Reasons")[2]
    rows = (line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    listed = {reason for row in rows for reason in re.findall(r"`([A-Z_]+)`", row)}
    assert given == listed
