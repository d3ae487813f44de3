"""The overlay on a real API server with its controllers, where one is at hand. Nothing runs in its pods."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.drift import faults, release
from tests.k8s.manifests import Manifests
from tests.k8s.tools import CONTROL_PLANE, OVERLAY, Document, documents, kubectl

NAMESPACE = "polymart"
PATIENCE = 120.0
LATER = f"{release()}9"
pytestmark = pytest.mark.timeout(400)


class Kubernetes:
    """kubectl on one cluster. Whatever takes too long, or fails unasked, fails the test."""

    def __init__(self, kubeconfig: str):
        self.environ = {**os.environ, "KUBECONFIG": kubeconfig}

    def run(self, *arguments: str | Path, stdin: str | None = None, fails: bool = False) -> str:
        result = subprocess.run(
            [kubectl(), *arguments],
            input=stdin,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result.stdout + (result.stderr if fails else "")

    def items(self, kinds: str, *where: str) -> list[Document]:
        found: list[Document] = json.loads(self.run("get", kinds, "-o", "json", *(where or ("-n", NAMESPACE))))["items"]
        return found

    def apply(self, *options: str) -> list[str]:
        """Apply the overlay; what became of each object."""
        return self.run("apply", "-k", OVERLAY, "--validate=strict", *options).splitlines()

    def rolled_out(self) -> None:
        """Wait until everything wanted is there, of the newest kind, ready, and every Job is complete."""
        until(lambda: not self._unfinished(), "the rollout")

    def _unfinished(self) -> list[str]:
        return [i["metadata"]["name"] for i in self.items("deployments,statefulsets,jobs") if not finished(i)]

    def versions(self) -> dict[str, str]:
        """The resource version of every object that the overlay brings: it changes with whatever is written to it."""
        kinds = "configmaps,deployments,jobs,secrets,serviceaccounts,services,statefulsets"
        found = {f"{i['kind']} {i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in self.items(kinds)}
        assert len(found) > 50
        return found


def finished(item: Document) -> bool:
    status, wanted = item["status"], item["spec"].get("replicas")
    if item["kind"] == "Job":
        return any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", []))
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    current = status.get("observedGeneration") == item["metadata"]["generation"]
    return current and counts == [wanted] * 4 and conditions.get("Available", "True") == "True"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    if not (CONTROL_PLANE / "k8s-up").exists():
        pytest.skip(f"no control plane in {CONTROL_PLANE}")
    folder = tmp_path_factory.mktemp("control-plane")
    command = [CONTROL_PLANE / "k8s-up", folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    try:
        yield Kubernetes(result.stdout.strip().removeprefix("export KUBECONFIG=").strip("'\""))
    finally:
        subprocess.run([CONTROL_PLANE / "k8s-down", folder, "--purge"], capture_output=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def cluster(empty: Kubernetes) -> Kubernetes:
    """With the overlay applied, by one command and without a warning, and rolled out."""
    applied = empty.apply("--warnings-as-errors")
    assert all(line.endswith(" created") for line in applied)
    empty.rolled_out()
    return empty


def test_its_namespace_refuses_what_is_not_restricted(cluster: Kubernetes) -> None:
    pod = ["run", "--image=polymart", "--dry-run=server", "-n", NAMESPACE, "intruder"]
    assert "restricted" in cluster.run(*pod, fails=True)


def test_a_second_apply_changes_nothing(cluster: Kubernetes) -> None:
    before = cluster.versions()
    changed = [line for line in cluster.apply() if not line.endswith(" unchanged")]
    assert changed == []
    assert cluster.versions() == before


def test_server_side_apply_meets_no_conflicts_and_changes_nothing_either(cluster: Kubernetes) -> None:
    cluster.apply("--server-side", "--field-manager=another")
    before = cluster.versions()
    cluster.apply("--server-side", "--field-manager=another")
    assert cluster.versions() == before


def suffix(version: str) -> str:
    return f"-v{version.replace('.', '-')}"


def released(version: str, replicas: int) -> list[Document]:
    """The overlay as a later release would have it."""
    later = documents()
    for workload in Manifests(later).own:
        if workload.kind == "Job":
            workload.document["metadata"]["name"] = workload.name.replace(suffix(release()), suffix(version))
        else:
            workload.document["spec"]["replicas"] = replicas
        workload.document["spec"]["template"]["spec"]["containers"][0]["image"] = f"polymart:{version}"
    return later


def test_a_release_rolls_out_with_never_fewer_pods_ready_than_wanted(cluster: Kubernetes, tmp_path: Path) -> None:
    services = ("deployments", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=service")
    cluster.run("scale", *services, "--replicas=2")
    cluster.rolled_out()
    counts = r'{.metadata.name} {.spec.replicas} {.status.readyReplicas} {.status.updatedReplicas}{"\n"}'
    seen = tmp_path / "seen"
    with seen.open("w") as output:
        watch = subprocess.Popen(
            [kubectl(), "get", *services, "--watch", "-o", f"jsonpath={counts}"], env=cluster.environ, stdout=output
        )
        try:
            until(lambda: len(seen.read_text().splitlines()) >= 8, "the watch")
            cluster.run("apply", "-f", "-", stdin=yaml.safe_dump_all(released(LATER, 2)))
            cluster.rolled_out()
        finally:
            watch.terminate()
            watch.wait(10)
    lines = [line.split(" ") for line in seen.read_text().splitlines()[:-1]]
    assert [name for name, wanted, ready, _ in lines if int(ready or 0) < int(wanted)] == []
    halfway = {name for name, _, _, updated in lines if updated == "1"}
    assert len(halfway) == 8, "a watch that saw no pod replaced proves nothing"
    jobs = {item["metadata"]["name"] for item in cluster.items("jobs")}
    assert len([name for name in jobs if name.endswith(suffix(LATER))]) == 9


def test_the_release_is_all_that_such_manifests_differ_by() -> None:
    assert {fault.rpartition(", ")[2] for fault in faults(Manifests(released(LATER, 1)))} == {
        f"the release is {release()}",
        release(),
    }


def test_volumes_go_with_their_statefulsets_and_deletion_leaves_nothing(cluster: Kubernetes) -> None:
    assert len(cluster.items("persistentvolumes", "-A")) == 4
    cluster.run("delete", "-k", OVERLAY)
    until(lambda: not cluster.items("persistentvolumes", "-A"), "the volumes to go")
    kinds = "namespaces,deployments,statefulsets,jobs,pods,services,secrets,persistentvolumeclaims"
    left = {(item["kind"], item["metadata"]["name"]) for item in cluster.items(kinds, "-A")}
    assert {name for kind, name in left if kind == "Namespace"} == {
        *("default", "kube-node-lease", "kube-public", "kube-system"),
    }
    assert left - {("Service", "kubernetes")} == {entry for entry in left if entry[0] == "Namespace"}
