"""What the overlay's engines must be told, asked and reached by, and what in rendered manifests differs from it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from chassis.config import PREFIX
from devstack.services import SERVICES
from tests.k8s.manifests import Manifests, Workload

# How an engine is told of the roles that it makes.
MADE = "PASSWORD_"
_POSTGRES = "pg_isready --quiet --host 127.0.0.1 --username polymart"
_ELASTICSEARCH = (
    'sh -c curl --silent --fail --max-time 4 --user "elastic:$ELASTIC_PASSWORD"'
    ' "http://127.0.0.1:9200/_cluster/health?local=true"'
)


@dataclass(frozen=True, slots=True)
class Told:
    """The names of an engine's variables, those of roles aside, and what startup, readiness and liveness ask."""

    names: frozenset[str]
    asked: tuple[str, str, str]
    # A user's name and the variable that has its password, where services log in as that.
    user: str = ""
    password: str = ""


ENGINES = {
    "postgres": Told(
        frozenset({"POSTGRES_USER", "POSTGRES_INITDB_ARGS", "PGDATA", "POSTGRES_PASSWORD"}),
        (_POSTGRES, _POSTGRES, _POSTGRES),
    ),
    "nats": Told(
        frozenset({"NATS_PASSWORD"}),
        (
            "GET monitor/healthz",
            "GET monitor/healthz?js-server-only=true",
            "GET monitor/healthz?js-enabled-only=true",
        ),
        user="polymart",
        password="NATS_PASSWORD",
    ),
    "mongodb": Told(
        frozenset({"HOME", "MONGO_INITDB_ROOT_USERNAME", "MONGO_INITDB_ROOT_PASSWORD"}),
        ("TCP mongodb", "TCP mongodb", "TCP mongodb"),
    ),
    "elasticsearch": Told(
        frozenset(
            {
                *("discovery.type", "xpack.security.enabled", "xpack.security.http.ssl.enabled", "xpack.ml.enabled"),
                *("ingest.geoip.downloader.enabled", "node.store.allow_mmap", "ES_JAVA_OPTS", "ELASTIC_PASSWORD"),
                "cluster.routing.allocation.disk.threshold_enabled",
            }
        ),
        (_ELASTICSEARCH, _ELASTICSEARCH, "TCP http"),
        user="elastic",
        password="ELASTIC_PASSWORD",
    ),
    "mail": Told(frozenset(), ("GET web/livez", "GET web/readyz", "GET web/livez")),
}
# The passwords of users with all rights, which no service has.
ROOTS = {"postgres": "POSTGRES_PASSWORD", "mongodb": "MONGO_INITDB_ROOT_PASSWORD"}
LOGINS = {"NATS_URL": "nats", "ELASTICSEARCH_URL": "elasticsearch"}


def engine_faults(manifests: Manifests) -> Iterator[str]:
    found = {w.name: w for w in manifests.workloads if w.name in ENGINES}
    yield from (f"nothing runs {name}" for name in ENGINES.keys() - found.keys())
    for name, workload in found.items():
        told = manifests.environment(workload).values
        yield from (f"{workload.title}: {fault}" for fault in _engine(ENGINES[name], workload, told))
    if "nats" in found:
        yield from (f"{found['nats'].title}: {fault}" for fault in _nats(manifests, found["nats"]))
    yield from _logins(manifests, found)


def _engine(expected: Told, workload: Workload, told: Mapping[str, str]) -> Iterator[str]:
    names = {name for name in told if not name.startswith(MADE)}
    yield from (f"{name} is nothing that it reads" for name in sorted(names - expected.names))
    yield from (f"{name} is missing" for name in sorted(expected.names - names))
    if told.get("POSTGRES_USER", "polymart") != "polymart":
        yield "POSTGRES_USER isn't whom its probes ask as"
    for probe, right in zip(("startupProbe", "readinessProbe", "livenessProbe"), expected.asked, strict=True):
        if (asks := asked(workload.container.get(probe, {}))) != right:
            yield f"{probe} asks {asks!r}, and should ask {right!r}"


def asked(probe: Mapping[str, Any]) -> str:
    """A probe in a line: "GET monitor/healthz", "TCP http", or a command."""
    if http := probe.get("httpGet"):
        return f"GET {http['port']}{http['path']}"
    if tcp := probe.get("tcpSocket"):
        return f"TCP {tcp['port']}"
    return " ".join(probe.get("exec", {}).get("command", []))


def _nats(manifests: Manifests, nats: Workload) -> Iterator[str]:
    """Its configuration listens on the ports that are declared, and knows the user that services are."""
    name = next(v["configMap"]["name"] for v in nats.pod["volumes"] if v["name"] == "config")
    if manifests.named("ConfigMap", name) is None:
        yield f"ConfigMap {name} is missing"
        return
    says = dict(re.findall(r"^\s*(\w+): (\S+)$", manifests.data("ConfigMap", name).get("nats.conf", ""), re.MULTILINE))
    expected = {"user": ENGINES["nats"].user, "password": f"${ENGINES['nats'].password}"}
    for key, value in expected.items():
        if says.get(key) != value:
            yield f"nats.conf has {key} {says.get(key)}, and should have {value}"
    for key, port in (("port", "client"), ("http_port", "monitor")):
        if says.get(key) != str(nats.ports.get(port)):
            yield f"nats.conf has {key} {says.get(key)}, port {port} is {nats.ports.get(port)}"


def _logins(manifests: Manifests, engines: Mapping[str, Workload]) -> Iterator[str]:
    told = {name: manifests.environment(workload).values for name, workload in engines.items()}
    given: set[str | None] = set()
    for workload in manifests.own:
        for name, value in manifests.environment(workload).values.items():
            variable = name.removeprefix(PREFIX)
            if not variable.endswith("_URL"):
                continue
            url = urlsplit(value)
            given.add(url.password)
            if (engine := LOGINS.get(variable, "")) not in told:
                continue
            expected = ENGINES[engine]
            if (url.username, url.password) != (expected.user, told[engine].get(expected.password)):
                yield f"{workload.title}: {name} isn't {expected.user} with the {expected.password} of {engine}"
    for engine, variable in ROOTS.items():
        if told.get(engine, {}).get(variable, "") in given:
            yield f"{engines[engine].title}: {variable} is a password that a service has too"


def wanted(service: str) -> dict[str, tuple[str, str]]:
    """Variable -> (Service, name of its port) of whatever a service reaches."""
    needs = SERVICES[service]
    stores = {"mongodb": ("MONGODB_URL", "mongodb"), "elasticsearch": ("ELASTICSEARCH_URL", "http")}
    found = dict.fromkeys(needs.databases, ("postgres", "postgresql"))
    for engine in needs.engines:
        variable, port = stores.get(engine, ("SMTP_ADDRESS", "smtp"))
        found[variable] = ("mail" if engine == "smtp" else engine, port)
    for peer in needs.peers:
        found[f"{peer.removesuffix('_svc').upper()}_ADDRESS"] = (peer.replace("_", "-"), "grpc")
    return found
