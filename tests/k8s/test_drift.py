"""The overlay's manifests fit what the services declare, and whatever is altered in them is named."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.k8s.drift import faults
from tests.k8s.manifests import Manifests, Workload
from tests.k8s.tools import Document, documents

Alter = Callable[[], object]


def test_the_manifests_fit_what_the_services_declare() -> None:
    assert faults(Manifests(documents())) == []


def alterations(manifests: Manifests) -> Iterator[tuple[str, str, Alter]]:
    """(what is altered, what the fault must name, how) for each name, port and probe; each alters for good."""
    for document in manifests.of_kind("ConfigMap", "Secret"):
        for name in [n for n in document["data"] if n.isupper()]:
            title = f"{document['kind']} {document['metadata']['name']}: {name}"
            yield f"{title} misspelt", name, lambda d=document["data"], n=name: d.update({f"{n}X": d.pop(n)})
    for workload in manifests.own:
        container = workload.document["spec"]["template"]["spec"]["containers"][0]
        for index, source in enumerate(container["envFrom"]):
            yield f"{workload.title} without {source}", workload.name, lambda c=container, i=index: c["envFrom"].pop(i)
        for variable in container.get("env", []):
            title = f"{workload.title} {variable['name']}"
            yield f"{title} misspelt", variable["name"], lambda v=variable: v.update(name=f"{v['name']}X")
            yield f"{title} twice", variable["name"], lambda c=container, v=variable: c["env"].append(dict(v))
        yield f"{workload.title} runs another", workload.name, lambda c=container: c["args"].insert(0, "x_svc")
    for workload in manifests.workloads:
        yield from _ports_and_probes(workload)
    for service in manifests.of_kind("Service"):
        title, name = f"Service {service['metadata']['name']}", service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            yield f"{title} {port['name']} moved", name, lambda p=port: p.update(port=p["port"] + 1)
            yield f"{title} {port['name']} mistargeted", name, lambda p=port: p.update(targetPort="x")
            yield f"{title} without {port['name']}", name, lambda s=service["spec"], p=port: s["ports"].remove(p)


def _ports_and_probes(workload: Workload) -> Iterator[tuple[str, str, Alter]]:
    container = workload.document["spec"]["template"]["spec"]["containers"][0]
    title, name = workload.title, workload.name
    for port in container.get("ports", []):
        if port["name"] != "monitor":
            yield f"{title} {port['name']} moved", name, lambda p=port: p.update(containerPort=p["containerPort"] + 1)
        yield f"{title} {port['name']} renamed", name, lambda p=port: p.update(name="x")
    for probe in [key for key in container if key.endswith("Probe")]:
        yield f"{title} without {probe}", probe, lambda c=container, p=probe: c.pop(p)
        for way in ("grpc", "httpGet", "tcpSocket"):
            if (asked := container[probe].get(way)) is not None:
                yield f"{title} {probe} at another port", probe, lambda a=asked: a.update(port=1)
        if (grpc := container[probe].get("grpc")) is not None:
            other = "liveness" if probe == "readinessProbe" else ""
            yield f"{title} {probe} asks an unknown name", probe, lambda g=grpc: g.update(service="x")
            yield f"{title} {probe} asks for another's", probe, lambda g=grpc, o=other: g.update(service=o)


def test_each_altered_name_port_and_probe_is_caught_and_named() -> None:
    untouched = documents()
    count = len(list(alterations(Manifests(untouched))))
    assert count > 200
    missed = []
    for number in range(count):
        altered: list[Document] = copy.deepcopy(untouched)
        what, named, alter = list(alterations(Manifests(altered)))[number]
        alter()
        found = faults(Manifests(altered))
        if not any(named in fault for fault in found):
            missed.append(f"{what}: {found}")
    assert missed == []


def _env(documents: list[Document], deployment: str, name: str) -> dict[str, Any]:
    workload = next(w for w in Manifests(documents).own if w.name == deployment)
    variables: list[dict[str, Any]] = workload.document["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(v for v in variables if v["name"] == name)


def _without_order_service(documents: list[Document]) -> None:
    documents.remove(next(d for d in documents if d["metadata"]["name"] == "order-svc" and d["kind"] == "Deployment"))


def _without_topology(documents: list[Document]) -> None:
    documents.remove(next(d for d in documents if d["metadata"]["name"].startswith("topology-v")))


def _on_loopback(documents: list[Document]) -> None:
    _env(documents, "order-svc", "POLYMART_GRPC_ADDRESS").update(value="127.0.0.1:50051")


def _with_a_long_drain(documents: list[Document]) -> None:
    _env(documents, "order-svc", "POLYMART_DRAIN_SECONDS").update(value="60")


def _in_anothers_database(documents: list[Document]) -> None:
    other = _env(documents, "customer-svc", "POLYMART_POSTGRES_URL")["value"]
    _env(documents, "order-svc", "POLYMART_POSTGRES_URL").update(value=other)


def _with_another_password(documents: list[Document]) -> None:
    _env(documents, "order-svc", "POLYMART_POSTGRES_URL").update(
        value="postgresql://polymart_order:x@postgres:5432/polymart_order"
    )


def _with_another_broker(documents: list[Document]) -> None:
    _env(documents, "order-svc", "POLYMART_NATS_URL").update(value="nats://polymart:dev-broker@mail:1025")


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (_without_order_service, "no Deployment runs order_svc"),
        (_without_topology, "no Job runs chassis.messaging migrate --wait"),
        (_on_loopback, "Deployment order-svc: POLYMART_GRPC_ADDRESS doesn't listen on the pod's address"),
        (_with_a_long_drain, "Deployment order-svc: terminationGracePeriodSeconds is 50, a stop may take 90"),
        (_in_anothers_database, "POLYMART_POSTGRES_URL should name the role and the database polymart_order"),
        (_with_another_password, "POLYMART_POSTGRES_URL has another password than the engine gives polymart_order"),
        (_with_another_broker, "POLYMART_NATS_URL differs"),
    ],
)
def test_what_else_can_drift_is_named(alter: Callable[[list[Document]], object], fault: str) -> None:
    altered = documents()
    alter(altered)
    assert any(fault in found for found in faults(Manifests(altered)))
