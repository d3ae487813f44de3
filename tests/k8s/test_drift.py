"""The overlay's manifests fit what the services declare, and whatever is altered in them is named."""

import base64
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chassis.messaging.topology import TOPOLOGY, Consumer
from devstack.services import SERVICES, Needs
from tests.k8s.drift import faults
from tests.k8s.engines import MADE
from tests.k8s.manifests import IMAGE, Manifests, Workload
from tests.k8s.tools import Document, documents

Alter = Callable[[], object]


def test_the_manifests_fit_what_the_services_declare() -> None:
    assert faults(Manifests(documents())) == []


def alterations(manifests: Manifests) -> Iterator[tuple[str, str, Alter]]:
    """(what is altered, what the fault must name, how) for each name, port and probe; each alters for good."""
    for document in manifests.of_kind("ConfigMap", "Secret"):
        for name in [n for n in document.get("data", {}) if n.isupper()]:
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
    engines = [workload for workload in manifests.workloads if workload.image[0] != IMAGE]
    told = [variable for engine in engines for variable in engine.container.get("env", [])]
    references = [variable["valueFrom"]["secretKeyRef"] for variable in told if "valueFrom" in variable]
    for workload in manifests.workloads:
        yield from _ports_and_probes(workload)
    for engine in engines:
        yield from _engine(engine, references)
    for service in manifests.of_kind("Service"):
        title, name = f"Service {service['metadata']['name']}", service["metadata"]["name"]
        if "clusterIP" in service["spec"]:
            yield f"{title} of one address", name, lambda s=service["spec"]: s.pop("clusterIP")
        for port in service["spec"]["ports"]:
            yield f"{title} {port['name']} moved", name, lambda p=port: p.update(port=p["port"] + 1)
            yield f"{title} {port['name']} mistargeted", name, lambda p=port: p.update(targetPort="x")
            yield f"{title} without {port['name']}", name, lambda s=service["spec"], p=port: s["ports"].remove(p)
            yield from _twice(f"{title} {port['name']}", service["spec"]["ports"], port, "port")


def _twice(title: str, ports: list[dict[str, Any]], port: dict[str, Any], key: str) -> Iterator[tuple[str, str, Alter]]:
    other = {**port, key: port[key] + 7}
    yield f"{title} twice", f"port {port['name']} is declared twice", lambda: ports.append(dict(port))
    yield f"{title} also elsewhere", f"port {port['name']} is declared twice", lambda: ports.insert(0, other)
    again = {**port, "name": "again"}
    yield f"{title} by another name", f"port {port[key]} is declared twice", lambda: ports.append(again)


def _engine(workload: Workload, references: list[dict[str, Any]]) -> Iterator[tuple[str, str, Alter]]:
    """What its variables are called, whose secret they are, and what its probes ask."""
    container = workload.document["spec"]["template"]["spec"]["containers"][0]
    for variable in container.get("env", []):
        title, name = f"{workload.title} {variable['name']}", variable["name"]
        named = f"polymart_{name.removeprefix(MADE).lower()}" if name.startswith(MADE) else name
        yield f"{title} misspelt", named, lambda v=variable: v.update(name=f"{v['name']}X")
        yield f"{title} twice", name, lambda c=container, v=variable: c["env"].append(dict(v))
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            yield f"{title} of no such key", name, lambda r=reference: r.update(key="X")
            another = dict(next(r for r in references if r["name"] != reference["name"]))
            yield f"{title} of another secret", named, lambda r=reference, a=another: r.update(a)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]
        if "exec" in asked:
            yield f"{workload.title} {probe} asks nobody", probe, lambda a=asked: a.update(exec={"command": ["false"]})
        if "httpGet" in asked:
            yield f"{workload.title} {probe} asks another path", probe, lambda a=asked: a["httpGet"].update(path="/x")


def _ports_and_probes(workload: Workload) -> Iterator[tuple[str, str, Alter]]:
    container = workload.document["spec"]["template"]["spec"]["containers"][0]
    title, name = workload.title, workload.name
    for port in container.get("ports", []):
        yield f"{title} {port['name']} moved", name, lambda p=port: p.update(containerPort=p["containerPort"] + 1)
        yield from _twice(f"{title} {port['name']}", container["ports"], port, "containerPort")
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
    assert count > 400
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


def _search_url(documents: list[Document], url: str) -> None:
    (secret,) = (d for d in documents if d["kind"] == "Secret" and "POLYMART_ELASTICSEARCH_URL" in d["data"])
    secret["data"]["POLYMART_ELASTICSEARCH_URL"] = base64.b64encode(url.encode()).decode()


def _searching_as_nobody(documents: list[Document]) -> None:
    _search_url(documents, "http://nobody:dev-search@elasticsearch:9200")


def _searching_in_mails(documents: list[Document]) -> None:
    _search_url(documents, "http://elastic:dev-search@mail:8025")


def _as_another_user_of_the_broker(documents: list[Document]) -> None:
    for workload in Manifests(documents).own:
        for variable in workload.document["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "POLYMART_NATS_URL":
                variable["value"] = variable["value"].replace("polymart:", "nobody:")


def _with_another_user_in_the_broker(documents: list[Document]) -> None:
    (config,) = (d["data"] for d in documents if "nats.conf" in d.get("data", {}))
    config["nats.conf"] = config["nats.conf"].replace("user: polymart", "user: nobody")


def _migrating_anothers_database(documents: list[Document]) -> None:
    other = _env(documents, "customer-svc", "POLYMART_POSTGRES_URL")["value"]
    job = next(w for w in Manifests(documents).own if w.kind == "Job" and w.args[0] == "order_svc")
    _env(documents, job.name, "POLYMART_POSTGRES_URL").update(value=other)


def _setting(documents: list[Document], name: str, value: str) -> None:
    for document in documents:
        if document["kind"] == "ConfigMap" and name in document.get("data", {}):
            document["data"][name] = value


def _mailing_to_the_web_page(documents: list[Document]) -> None:
    _setting(documents, "POLYMART_SMTP_ADDRESS", "mail:8025")


def _with_a_default(documents: list[Document]) -> None:
    (settings,) = (d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith("order-"))
    settings["data"]["POLYMART_ORDER_DEADLINE_SECONDS"] = "1800"


def _asking_the_catalogs_metrics(documents: list[Document]) -> None:
    _setting(documents, "POLYMART_CATALOG_ADDRESS", "catalog-svc:9090")


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (_searching_as_nobody, "POLYMART_ELASTICSEARCH_URL isn't elastic with the ELASTIC_PASSWORD of elasticsearch"),
        (_searching_in_mails, "POLYMART_ELASTICSEARCH_URL names mail:8025, and not elasticsearch's port http"),
        (_as_another_user_of_the_broker, "POLYMART_NATS_URL isn't polymart with the NATS_PASSWORD of nats"),
        (_with_another_user_in_the_broker, "nats.conf has user nobody, and should have polymart"),
        (_migrating_anothers_database, "are told different things: POLYMART_POSTGRES_URL"),
        (_mailing_to_the_web_page, "POLYMART_SMTP_ADDRESS names mail:8025, and not mail's port smtp"),
        (_asking_the_catalogs_metrics, "names catalog-svc:9090, and not catalog-svc's port grpc"),
        (_with_a_default, "Deployment order-svc: POLYMART_ORDER_DEADLINE_SECONDS is what it would be anyway"),
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


def test_a_consumer_that_is_made_for_nobody_or_asked_for_and_not_made_is_named() -> None:
    first, *others = TOPOLOGY.consumers
    manifests = Manifests(documents())
    lacking = faults(manifests, replace(TOPOLOGY, consumers=tuple(others)))
    assert [f for f in lacking if f"takes messages by {first.durable}, which nobody makes" in f] == lacking != []
    more = (Consumer("order_svc", "EVT_NONE", ()), Consumer("x_svc", first.stream, ()))
    assert set(faults(manifests, replace(TOPOLOGY, consumers=(*TOPOLOGY.consumers, *more)))) == {
        "consumer order_svc-EVT_NONE is of EVT_NONE, which is no stream",
        f"consumer x_svc-{first.stream} is of x_svc, which is no service",
        "Deployment order-svc: consumer order_svc-EVT_NONE is made and not used",
    }


def test_a_store_that_a_service_is_not_said_to_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVICES, "order_svc", Needs({}, (), ("catalog_svc",)))
    assert any("order_svc: POLYMART_POSTGRES_URL is a setting" in found for found in faults(Manifests(documents())))
