"""Synonyms from a file that changes under the service."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from search_svc.adapters.synonyms_file import SynonymsFile
from search_svc.domain.synonyms import BadSynonyms


def known(file: SynonymsFile) -> list[str]:
    return [other for _, _, other in file()(["telly"])]


def test_a_change_is_taken_up_and_a_bad_one_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "synonyms", [0.0]
    path.write_text("telly, television")
    file = SynonymsFile(path, now=lambda: now[0])
    assert known(file) == ["television"]
    path.write_text("telly, tv set")
    assert known(file) == ["television"]
    now[0] += 1
    assert known(file) == ["tv set"]
    path.write_text("telly\n, b")
    with capture_logs() as logs:
        for _ in range(3):
            now[0] += 1
            assert known(file) == ["tv set"]
    assert [entry["faults"] for entry in logs] == [
        ["line 1: names one thing only; write a, b or a => b", "line 2: has an empty name"]
    ]
    path.unlink()
    now[0] += 1
    assert known(file) == ["tv set"]
    path.write_bytes(b"telly, \xff")
    now[0] += 1
    assert known(file) == ["tv set"]
    path.write_text("telly, goggle box")
    now[0] += 1
    assert known(file) == ["goggle box"]


def test_a_service_does_not_begin_with_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("alone")
    with pytest.raises(BadSynonyms, match="line 1"):
        SynonymsFile(tmp_path / "bad")
    with pytest.raises(BadSynonyms, match="can't be read"):
        SynonymsFile(tmp_path / "nowhere")
