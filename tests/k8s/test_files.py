"""What can be said of the Dockerfile, the manifests, the compose file and the workflow without running them."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from devstack.engines import KINDS
from devstack.home import Home
from tests.k8s.image import stages
from tests.k8s.manifests import Manifests
from tests.k8s.tools import ROOT, documents, rendered

# The oldest whose schema has all that the manifests use, and the newest that is known.
KUBERNETES = ("1.30.0", "1.37.0")
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def test_the_image_is_of_a_pinned_base_and_its_user_is_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_DIGEST=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    froms = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(froms) == 2
    assert all(base.endswith("@${PYTHON_DIGEST}") for base in froms)
    users = [step.text for step in stages(text)[-1] if step.instruction == "USER"]
    runs_as = {
        (w.pod["securityContext"]["runAsUser"], w.pod["securityContext"]["runAsGroup"])
        for w in Manifests(documents()).own
    }
    assert users == ["10001:10001"]
    assert runs_as == {(10001, 10001)}


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifests_are_valid_to_the_letter(version: str) -> None:
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_every_secret_is_of_the_overlay_and_every_image_has_a_version() -> None:
    manifests = Manifests(documents())
    assert len(list(manifests.of_kind("Secret"))) == 10
    base = yaml.safe_load_all(rendered(ROOT / "k8s" / "base"))
    assert {document["kind"] for document in base} == {"ConfigMap", "Deployment", "Job", "Service", "ServiceAccount"}
    containers = [c for w in manifests.workloads for c in (*w.pod["containers"], *w.pod.get("initContainers", []))]
    assert [c["image"] for c in containers if not re.search(r":v?\d+\.\d+\.?\d*$", c["image"])] == []


def test_compose_and_ci_have_the_overlays_engines_and_composes_lines_point_the_stack_at_them(tmp_path: Path) -> None:
    text = (ROOT / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    images = {w.name: w.container["image"] for w in Manifests(documents()).workloads}
    assert {name: s["image"].removesuffix("-alpine") for name, s in services.items()} == {
        n: images[n] for n in services
    }
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tried = {name: s["image"] for name, s in workflow["jobs"]["contracts"]["services"].items()}
    assert tried == {name: images[name] for name in tried}
    environ = dict(re.findall(r"^#   export (POLYMART_\w+)=(\S+)$", text, re.MULTILINE))
    home = Home(tmp_path, environ=environ)
    published = {port.removeprefix("127.0.0.1:").split(":")[0] for s in services.values() for port in s["ports"]}
    for kind in KINDS.values():
        engine = kind(home)
        assert engine.external, f"no line sets {kind.variable}"
        assert re.search(r":(\d+)(/|$)", engine.url)[1] in published  # type: ignore[index]


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    if (go := shutil.which("go")) is None:
        pytest.skip("no Go, which builds actionlint")
    had = subprocess.run([go, "run", ACTIONLINT, "-version"], capture_output=True, text=True, timeout=110, cwd=ROOT)
    if had.returncode != 0:
        pytest.skip(f"actionlint can't be had: {had.stderr.splitlines()[-1]}")
    found = subprocess.run([go, "run", ACTIONLINT, "-no-color"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (found.returncode, found.stdout) == (0, "")
