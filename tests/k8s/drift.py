"""What in rendered manifests doesn't fit what the services declare: settings, ports, health, databases, streams."""

import contextlib
import functools
import importlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from chassis.config import PREFIX, ConfigError, ServiceConfig, load, split_address
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY, Topology
from chassis.rpc.server import LIVENESS, READINESS
from chassis.service import STOP_MARGIN, Service
from devstack.services import SERVICES, Needs
from tests.k8s.engines import MADE, engine_faults, wanted
from tests.k8s.manifests import IMAGE, Environment, Manifests, Workload
from tests.k8s.tools import ROOT

# (variable, value), sorted.
Settings = tuple[tuple[str, str], ...]

TOPOLOGY_JOB = ["chassis.messaging", "migrate", "--wait"]
# What a pod must be told although it has a default, which is good on one machine alone.
IN_A_CLUSTER = {"grpc_address", "metrics_address", "nats_url"}
PROBES = {"startupProbe": {LIVENESS}, "livenessProbe": {LIVENESS}, "readinessProbe": {READINESS}}
# What a Deployment is told and its migration isn't.
SERVING = {"GRPC_ADDRESS", "METRICS_ADDRESS", "DRAIN_SECONDS"}


def faults(manifests: Manifests, topology: Topology = TOPOLOGY) -> list[str]:
    """A sentence for everything that doesn't fit; empty when all is well."""
    return [
        *_declared(),
        *_workloads(manifests),
        *(f for w in manifests.own for f in _own(manifests, w)),
        *_streams(manifests, topology),
        *_references(manifests),
        *_stores(manifests),
        *engine_faults(manifests),
        *_release(manifests),
        *(f for w in manifests.workloads for f in _ports(manifests, w)),
    ]


def config_type(module: str) -> type[ServiceConfig]:
    """The settings of what `python -m module` runs."""
    if module not in SERVICES:
        return ServiceConfig
    config = importlib.import_module(f"{module}.config")
    own = (c for c in vars(config).values() if isinstance(c, type) and c.__module__ == config.__name__)
    (found,) = (c for c in own if issubclass(c, ServiceConfig))
    return found


def _frozen(environment: Environment) -> Settings:
    return tuple(sorted(environment.values.items()))


@functools.cache
def problems(module: str, settings: Settings) -> list[str]:
    """What the service would say of its settings before it ends with 2."""
    try:
        load(config_type(module), dict(settings))
    except ConfigError as error:
        return error.problems
    return []


@functools.cache
def parts(module: str, settings: Settings) -> tuple[set[str], set[str]]:
    """The names that the service's health answers to beside those of every service, and its durable consumers."""
    service: Service = importlib.import_module(f"{module}.bootstrap").build(load(config_type(module), dict(settings)))
    consumers = {worker.name for worker in service.workers if isinstance(worker, Subscription)}
    return {servicer.name for servicer in service.servicers}, consumers


def deployment_name(module: str) -> str:
    return module.replace("_", "-")


def _workloads(manifests: Manifests) -> Iterator[str]:
    """Each service has one Deployment and one migration, the broker one topology; nobody else runs the image."""
    expected = {
        ("Job", tuple(TOPOLOGY_JOB)): "topology",
        **{("Deployment", (module,)): deployment_name(module) for module in SERVICES},
        **{("Job", (module, "migrate", "--wait")): f"{deployment_name(module)}-migrate" for module in SERVICES},
    }
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for workload in manifests.own:
        key = (workload.kind, tuple(workload.args))
        if key not in expected:
            yield f"{workload.title} runs {' '.join(workload.args)}, which is nothing that is known"
        elif key in seen:
            yield f"{workload.title} runs {' '.join(workload.args)} a second time"
        elif not workload.name.startswith(expected[key]):
            yield f"{workload.title} runs {' '.join(workload.args)}, and should be named {expected[key]}"
        seen.add(key)
    for kind, args in expected.keys() - seen:
        yield f"no {kind} runs {' '.join(args)}"
    told = {(w.kind, w.args[0]): w for w in manifests.own}
    for module in SERVICES:
        service, job = told.get(("Deployment", module)), told.get(("Job", module))
        if service is None or job is None:
            continue
        one, other = (manifests.environment(w).values for w in (service, job))
        serving = {f"{PREFIX}{name}" for name in SERVING}
        for name in sorted((one.keys() | other.keys()) - serving):
            if one.get(name) != other.get(name):
                yield f"{service.title} and {job.title} are told different things: {name}"
        if service.container.get("envFrom") != job.container.get("envFrom"):
            yield f"{service.title} and {job.title} are told different things"


def _declared() -> Iterator[str]:
    """What each service's settings ask for is what it is said to need: databases, engines and peers."""
    for module in SERVICES:
        fields = config_type(module).model_fields
        must = {n.upper() for n, field in fields.items() if n.endswith(("_url", "_address")) and field.is_required()}
        needs = wanted(module).keys()
        for variable in sorted((must - needs) | (needs - {name.upper() for name in fields})):
            yield f"{module}: {PREFIX}{variable} is a setting or a need, and not the other"


def _streams(manifests: Manifests, topology: Topology) -> Iterator[str]:
    """Each service takes messages by the very consumers that the topology's Job makes for it."""
    for consumer in topology.consumers:
        if consumer.service not in SERVICES:
            yield f"consumer {consumer.durable} is of {consumer.service}, which is no service"
        if consumer.stream not in {stream.name for stream in topology.streams}:
            yield f"consumer {consumer.durable} is of {consumer.stream}, which is no stream"
    for workload in manifests.own:
        if workload.kind != "Deployment":
            continue
        try:
            _, taken = parts(workload.args[0], _frozen(manifests.environment(workload)))
        except (ConfigError, ImportError):
            continue  # named by others
        made = {consumer.durable for consumer in topology.consumers_of(workload.args[0])}
        yield from (f"{workload.title} takes messages by {name}, which nobody makes" for name in sorted(taken - made))
        yield from (f"{workload.title}: consumer {name} is made and not used" for name in sorted(made - taken))


def _own(manifests: Manifests, workload: Workload) -> Iterator[str]:
    environment = manifests.environment(workload)
    yield from (f"{workload.title}: {fault}" for fault in _settings(workload, environment))
    if workload.kind == "Deployment":
        for check in (_health, _listening, _drain):
            yield from (f"{workload.title}: {fault}" for fault in check(workload, environment))


def _settings(workload: Workload, environment: Environment) -> Iterator[str]:
    declared = config_type(workload.args[0])
    known = {f"{PREFIX}{name.upper()}" for name in declared.model_fields}
    unknown = environment.values.keys() - known - environment.parts
    yield from (f"{name} is no setting of {workload.args[0]}" for name in sorted(unknown))
    must = IN_A_CLUSTER if workload.kind == "Deployment" else {"nats_url"}
    for variable in sorted(f"{PREFIX}{name.upper()}" for name in must):
        if not environment.values.get(variable):
            yield f"{variable} is missing"
    for name, field in declared.model_fields.items():
        # How long a drain takes is said where the grace is, which has to fit.
        if name != "drain_seconds" and environment.values.get(f"{PREFIX}{name.upper()}") == f"{field.default}":
            yield f"{PREFIX}{name.upper()} is what it would be anyway"
    yield from problems(workload.args[0], _frozen(environment))


def _health(workload: Workload, environment: Environment) -> Iterator[str]:
    names = {LIVENESS, READINESS}
    with contextlib.suppress(ConfigError, ImportError):  # named by others
        names |= parts(workload.args[0], _frozen(environment))[0]
    for probe, right in PROBES.items():
        grpc = workload.container.get(probe, {}).get("grpc")
        if grpc is None:
            yield f"{probe} is missing"
            continue
        if grpc["port"] != workload.ports.get("grpc"):
            yield f"{probe} asks port {grpc['port']}, gRPC is on {workload.ports.get('grpc')}"
        name = grpc.get("service", "")
        if name not in names:
            yield f"{probe} asks for {name!r}, a name that health doesn't know"
        elif name not in (right if LIVENESS in right else names - {LIVENESS}):
            yield f"{probe} asks for {name!r}, which tells something else"


def _listening(workload: Workload, environment: Environment) -> Iterator[str]:
    told = {"grpc": "GRPC_ADDRESS", "metrics": "METRICS_ADDRESS"}
    for name in workload.ports.keys() - told.keys():
        yield f"port {name} is nothing that a service listens on"
    for name, variable in told.items():
        try:
            host, port = split_address(environment.values[f"{PREFIX}{variable}"])
        except (KeyError, ValueError):
            continue  # named by others
        if host != "0.0.0.0":
            yield f"{PREFIX}{variable} doesn't listen on the pod's address"
        if workload.ports.get(name) != port:
            yield f"port {name} is {workload.ports.get(name)}, {PREFIX}{variable} says {port}"


def _drain(workload: Workload, environment: Environment) -> Iterator[str]:
    """Endpoints are forgotten first, then the service drains, and nobody kills it meanwhile."""
    pause = workload.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if not pause:
        yield "preStop is missing"
    try:
        drain = float(environment.values.get(f"{PREFIX}DRAIN_SECONDS", ServiceConfig().drain_seconds))
    except ValueError:
        return  # named by others
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    if grace < pause + drain + STOP_MARGIN:
        yield f"terminationGracePeriodSeconds is {grace}, a stop may take {pause + drain + STOP_MARGIN:g}"


def _ports(manifests: Manifests, workload: Workload) -> Iterator[str]:
    """Services are headless: a client dials the very port that it was told, so that it must be the container's."""
    for twice in _doubles(part for port in workload.declared_ports for part in port):
        yield f"{workload.title}: port {twice} is declared twice"
    services = manifests.services_of(workload)
    if workload.kind == "Job":
        yield from (f"{workload.title}: its pods are endpoints of Service {s['metadata']['name']}" for s in services)
        return
    if [s["metadata"]["name"] for s in services] != [workload.name]:
        yield f"{workload.title} needs a Service of its name, and that alone"
    if workload.image[0] == IMAGE or workload.kind == "StatefulSet":
        for service in services:
            if service["spec"].get("clusterIP") != "None":
                yield f"Service {service['metadata']['name']} isn't headless"
    for service in services:
        for twice in _doubles(part for port in service["spec"]["ports"] for part in (port["name"], port["port"])):
            yield f"Service {service['metadata']['name']}: port {twice} is declared twice"
    for port in (port for service in services for port in service["spec"]["ports"]):
        target = workload.ports.get(port["targetPort"])
        if target != port["port"]:
            yield f"Service {workload.name}: port {port['port']} goes to {port['targetPort']}, which is {target}"
    if unnamed := workload.ports.keys() - {p["targetPort"] for s in services for p in s["spec"]["ports"]} - {"monitor"}:
        yield f"Service {workload.name}: lacks {', '.join(sorted(unnamed))}"
    for probe in PROBES:
        for way in ("httpGet", "tcpSocket"):
            port = workload.container.get(probe, {}).get(way, {}).get("port")
            if port is not None and port not in workload.ports:
                yield f"{workload.title}: {probe} asks port {port}, which it doesn't have"
    if missing := PROBES.keys() - workload.container.keys():
        yield f"{workload.title}: {', '.join(sorted(missing))} is missing"


def _doubles(things: Iterable[str | int]) -> list[str | int]:
    return [thing for thing, count in Counter(things).items() if count > 1]


def _references(manifests: Manifests) -> Iterator[str]:
    """Whatever host a setting names is the Service meant, by the port meant; everything there is, is used."""
    named = {
        (s["metadata"]["name"], p["name"]): f"{s['metadata']['name']}:{p['port']}"
        for s in manifests.of_kind("Service")
        for p in s["spec"]["ports"]
    }
    for workload in manifests.own:
        places = {"NATS_URL": ("nats", "client"), **(wanted(workload.args[0]) if workload.args[0] in SERVICES else {})}
        for variable, value in manifests.environment(workload).values.items():
            found = re.fullmatch(r"(?:\w+://)?(?:[^@/]*@)?(?P<place>[\w.-]+:\d+)(?:/\w*)?", value)
            if not found or found["place"].startswith("0.0.0.0:"):
                continue
            place = places.get(variable.removeprefix(PREFIX))
            if place is None:
                yield f"{workload.title}: {variable} names {found['place']}, and nobody knows what for"
            elif found["place"] != named.get(place):
                yield f"{workload.title}: {variable} names {found['place']}, and not {place[0]}'s port {place[1]}"
    for workload in manifests.workloads:
        yield from (f"{workload.title}: {fault}" for fault in manifests.environment(workload).faults)
    used = set(_used(manifests))
    for document in manifests.of_kind("ConfigMap", "Secret"):
        key = (document["kind"], document["metadata"]["name"])
        if key not in used:
            yield f"{key[0]} {key[1]} is used by nobody"


def _used(manifests: Manifests) -> Iterator[tuple[str, str]]:
    for workload in manifests.workloads:
        for source in workload.container.get("envFrom", []):
            yield from (("ConfigMap", r["name"]) for r in [source.get("configMapRef")] if r)
            yield from (("Secret", r["name"]) for r in [source.get("secretRef")] if r)
        for variable in workload.container.get("env", []):
            if "valueFrom" in variable:
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]
        yield from (("ConfigMap", v["configMap"]["name"]) for v in workload.pod.get("volumes", []) if "configMap" in v)


def _stores(manifests: Manifests) -> Iterator[str]:
    """Each has its own database, role and password, which the engine makes; all have the same broker."""
    told = [(w, name, value) for w in manifests.workloads for name, value in manifests.environment(w).values.items()]
    made = {f"polymart_{n.removeprefix(MADE).lower()}": value for _, n, value in told if n.startswith(MADE)}
    owned: dict[str, str] = {}
    for workload in manifests.own:
        values = manifests.environment(workload).values
        if workload.kind == "Deployment" and workload.args[0] in SERVICES:
            needs = SERVICES[workload.args[0]]
            for variable, owner in _databases(needs, workload.args[0]).items():
                name = f"{PREFIX}{variable}"
                for fault in _database(f"polymart_{owner}", values.get(name, ""), made, owned):
                    yield f"{workload.title}: {name} {fault}"
    yield from (f"an engine makes {owner}, which nobody uses" for owner in made.keys() - owned.keys())
    keys = {value for _, name, value in told if name == f"{PREFIX}TOKEN_KEY"}
    if len(keys) > 1:
        yield f"{PREFIX}TOKEN_KEY differs: what one signs, another must be able to check"
    brokers = {value for _, name, value in told if name == f"{PREFIX}NATS_URL"}
    if len(brokers) > 1:
        yield f"{PREFIX}NATS_URL differs: streams are made by one broker and asked of another"


def _databases(needs: Needs, module: str) -> dict[str, str]:
    """Variable -> owner."""
    catalog = {"MONGODB_URL": module.removesuffix("_svc")} if "mongodb" in needs.engines else {}
    return {**needs.databases, **catalog}


def _database(owner: str, url: str, made: Mapping[str, str], owned: dict[str, str]) -> Iterator[str]:
    parts = urlsplit(url)
    if {parts.username, parts.path.strip("/")} != {owner}:
        yield f"should name the role and the database {owner}"
    if owner not in made:
        yield f"needs {owner}, which no engine makes"
    elif parts.password != made[owner]:
        yield f"has another password than the engine gives {owner}"
    if parts.password in owned.values():
        yield "has a password that is another's too"
    owned[owner] = str(parts.password)


def release() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def _release(manifests: Manifests) -> Iterator[str]:
    """Jobs are named by the image that they run, which is this release's."""
    version = release()
    for workload in manifests.own:
        if workload.image[1] != version:
            yield f"{workload.title} runs image {workload.image[1]}, the release is {version}"
        if workload.kind == "Job" and not workload.name.endswith(f"-v{version.replace('.', '-')}"):
            yield f"{workload.title} isn't named by its release, {version}"
