"""The command itself, where it needs no stack."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.main import app


def test_an_import_that_cannot_begin_says_why_and_shows_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYMART_HOME", str(tmp_path))
    missing = CliRunner().invoke(app, ["import", "/nowhere/at/all"])
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr == "polymart: /nowhere/at/all: No such file or directory\n"
    products = tmp_path / "products.jsonl"
    products.touch()
    down = CliRunner().invoke(app, ["import", str(products)])
    assert (down.exit_code, down.stdout) == (1, "")
    assert down.stderr.startswith("polymart: stack: none runs in ")
