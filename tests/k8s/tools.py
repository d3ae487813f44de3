"""Programs that the tests of the manifests need and Python's registry doesn't have. None of them is required."""

import atexit
import functools
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "k8s" / "overlays" / "dev"
# A control plane without containers, where the checkout has it beside itself.
CONTROL_PLANE = ROOT.parent / "shared" / "tools" / "k8s"

# JSON as YAML has it: a manifest.
Document = dict[str, Any]


@functools.cache
def kubectl() -> str:
    """The program's path: the control plane's own, or one on PATH; skips the test where there is neither."""
    beside = [CONTROL_PLANE / "bin", Path.home() / ".cache" / "k8s-up" / "bin"] if CONTROL_PLANE.exists() else []
    path = os.pathsep.join([*map(str, beside), os.environ.get("PATH", "")])
    if found := shutil.which("kubectl", path=path):
        return found
    archive = CONTROL_PLANE / "binaries.tar.xz"
    if not archive.exists():
        pytest.skip(f"no kubectl on PATH nor in {CONTROL_PLANE}")
    folder = Path(tempfile.mkdtemp(prefix="kubectl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(archive) as binaries:
        binaries.extractall(folder, filter="data")
    return str(folder / "bin" / "kubectl")


@functools.cache
def rendered(folder: Path = OVERLAY) -> str:
    """What `kubectl apply -k` would send."""
    result = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def documents() -> list[Document]:
    """The overlay's manifests, anew each time: they may be altered."""
    return [document for document in yaml.safe_load_all(rendered()) if document]
