"""Rendered manifests as the tests ask about them: workloads, their environment, Services."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.k8s.tools import Document

IMAGE = "polymart"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, Job or StatefulSet with one container."""

    document: Document

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def pod(self) -> Document:
        spec: Document = self.document["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Document:
        (only,) = self.pod["containers"]
        return dict(only)

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.document["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def image(self) -> tuple[str, str]:
        """Name and tag."""
        name, _, tag = str(self.container["image"]).partition(":")
        return name, tag

    @property
    def args(self) -> list[str]:
        return list(self.container.get("args", []))

    @property
    def declared_ports(self) -> list[tuple[str, int]]:
        """Names and numbers of container ports as they stand, doubled ones too."""
        return [(port["name"], port["containerPort"]) for port in self.container.get("ports", [])]

    @property
    def ports(self) -> dict[str, int]:
        """Container ports by name."""
        return dict(self.declared_ports)


@dataclass(slots=True)
class Environment:
    """What a container is told, and what is wrong with how it is told."""

    values: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    # The variables that others are made of.
    parts: set[str] = field(default_factory=set)

    def add(self, name: str, value: str) -> None:
        if name in self.values:
            self.faults.append(f"{name} is given twice")
        self.values[name] = value

    def expand(self, name: str, text: str) -> str:
        """`$(NAME)` as what that variable holds by now."""

        def value(found: re.Match[str]) -> str:
            if found[1] not in self.values:
                self.faults.append(f"{name} is made of {found[1]}, which isn't given")
            self.parts.add(found[1])
            return self.values.get(found[1], found[0])

        return re.sub(r"\$\((\w+)\)", value, text)


class Manifests:
    def __init__(self, documents: Sequence[Document]):
        self._documents = documents

    def of_kind(self, *kinds: str) -> Iterator[Document]:
        return (document for document in self._documents if document["kind"] in kinds)

    def named(self, kind: str, name: str) -> Document | None:
        return next((d for d in self.of_kind(kind) if d["metadata"]["name"] == name), None)

    @property
    def workloads(self) -> list[Workload]:
        return [Workload(document) for document in self.of_kind("Deployment", "Job", "StatefulSet")]

    @property
    def own(self) -> list[Workload]:
        """Those that run Polymart's image."""
        return [workload for workload in self.workloads if workload.image[0] == IMAGE]

    def services_of(self, workload: Workload) -> list[Document]:
        """The Services whose endpoints are the workload's pods."""
        return [s for s in self.of_kind("Service") if s["spec"]["selector"].items() <= workload.labels.items()]

    def data(self, kind: str, name: str) -> dict[str, str]:
        """The text of a ConfigMap or a Secret. Raises KeyError if there is none of that name."""
        document = self.named(kind, name)
        if document is None:
            raise KeyError(f"{kind} {name} is missing")
        data: dict[str, str] = document.get("data", {})
        if kind == "Secret":
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return data

    def environment(self, workload: Workload) -> Environment:
        """The container's variables as kubelet would resolve them."""
        environment = Environment()
        for source in workload.container.get("envFrom", []):
            for kind, reference in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if reference in source:
                    try:
                        found = self.data(kind, source[reference]["name"])
                    except KeyError as error:
                        environment.faults.append(str(error.args[0]))
                        continue
                    for name, value in found.items():
                        environment.add(name, value)
        for variable in workload.container.get("env", []):
            try:
                environment.add(variable["name"], environment.expand(variable["name"], self._value(variable)))
            except KeyError as error:
                environment.faults.append(f"{variable['name']}: {error.args[0]}")
        return environment

    def _value(self, variable: dict[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        reference = variable["valueFrom"]["secretKeyRef"]
        data = self.data("Secret", reference["name"])
        if reference["key"] not in data:
            raise KeyError(f"Secret {reference['name']} has no {reference['key']}")
        return data[reference["key"]]
