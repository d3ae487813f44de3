"""Pods without a container engine: each container a process in a sandbox, told what its manifest says.

Its tree is read-only but for the manifest's volumes, it is process 1 there, and it has the manifest's user. Every pod
has a loopback address of its own, so that ports are the manifest's; where a Service is named, that pod's address, or a
local engine's, stands instead. Services and users of the network are all that the sandbox shares with the machine.
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.request import urlopen

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.conftest import until
from tests.k8s.image import Image, system
from tests.k8s.manifests import Manifests, Workload

# What an image has of a system: programs and libraries, and what name resolution reads.
_KEPT = ("usr", "bin", "sbin", "lib", "lib32", "lib64")
_KEPT_OF_ETC = ("hosts", "ld.so.cache", "nsswitch.conf", "passwd", "resolv.conf", "ssl")


class Network:
    """Where a Service's name and port lead here."""

    def __init__(self) -> None:
        self._prefix = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self._pods: dict[str, str] = {}
        self.engines: dict[str, str] = {}

    def address(self, workload: str) -> str:
        """The pod's own; ports are the manifest's."""
        return self._pods.setdefault(workload, f"{self._prefix}.{len(self._pods) + 1}")

    def localize(self, value: str, own: str) -> str:
        """A setting with addresses of this machine: engines elsewhere, pods by their loopback address, itself too."""
        for name, place in self.engines.items():
            value = re.sub(rf"(?<![\w.-]){re.escape(name)}(?!\d)", place, value)
        for name, address in self._pods.items():
            value = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=:\d)", address, value)
        return value.replace("0.0.0.0:", f"{self.address(own)}:")


class Pod:
    """One pod of a workload. `folder` keeps its volumes and its log."""

    def __init__(self, workload: Workload, manifests: Manifests, image: Image, network: Network, folder: Path):
        self.workload = workload
        self.address = network.address(workload.name)
        self.log = folder / f"{workload.name}.log"
        self._manifests = manifests
        self._image = image
        self._network = network
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._inside = 0
        self._status: TextIO | None = None

    @property
    def environ(self) -> dict[str, str]:
        told = self._manifests.environment(self.workload)
        assert told.faults == []
        own = {name: self._network.localize(value, self.workload.name) for name, value in told.values.items()}
        return {**self._image.environ, **own}

    @property
    def grace(self) -> float:
        """Seconds that are left after preStop."""
        pause = self.workload.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        return float(self.workload.pod.get("terminationGracePeriodSeconds", 30)) - float(pause)

    async def start(self, *command: str) -> None:
        """Run the container's command, or another in its place."""
        arguments = command or (*self._image.entrypoint, *self.workload.args)
        status, told = os.pipe()
        try:
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self._sandbox(told),
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(told,),
                )
        finally:
            os.close(told)
        # Left open: the sandbox tells of the end there too, and would die of it otherwise.
        self._status = os.fdopen(status)
        first = await asyncio.wait_for(asyncio.to_thread(self._status.readline), 10)
        assert first, self.tail()
        self._inside = json.loads(first)["child-pid"]

    def _sandbox(self, status: int) -> list[str]:
        context = self.workload.pod["securityContext"]
        user, group = str(context["runAsUser"]), str(context["runAsGroup"])
        options = ["--unshare-user", "--uid", user, "--gid", group, "--unshare-pid", "--unshare-ipc", "--as-pid-1"]
        options += ["--die-with-parent", "--json-status-fd", str(status), "--clearenv"]
        options += system({entry.name for entry in Path("/").iterdir()} - set(_KEPT))
        for name in _KEPT_OF_ETC:
            options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        options += ["--ro-bind", sys.base_prefix, sys.base_prefix, "--proc", "/proc", "--dev", "/dev"]
        for place, tree in self._image.trees.items():
            options += ["--ro-bind", str(tree), place]
        options += self._volumes()
        if self.workload.container["securityContext"]["readOnlyRootFilesystem"]:
            options += ["--remount-ro", "/"]
        for name, value in self.environ.items():
            options += ["--setenv", name, value]
        return ["bwrap", *options, "--chdir", self._image.workdir]

    def _volumes(self) -> list[str]:
        options: list[str] = []
        volumes = {volume["name"]: volume for volume in self.workload.pod.get("volumes", [])}
        for mount in self.workload.container.get("volumeMounts", []):
            volume = volumes.get(mount["name"], {})
            place = self._folder / f"{self.workload.name}-{mount['name']}"
            place.mkdir(exist_ok=True)
            if "configMap" in volume:
                for name, text in self._manifests.data("ConfigMap", volume["configMap"]["name"]).items():
                    (place / name).write_text(text)
                options += ["--ro-bind", str(place), mount["mountPath"]]
            elif "emptyDir" in volume:
                options += ["--tmpfs", mount["mountPath"]]
            else:
                options += ["--bind", str(place), mount["mountPath"]]
        return options

    async def probe(self, name: str) -> bool:
        """Ask once, as kubelet does."""
        probe = self.workload.container[name]
        patience = probe.get("timeoutSeconds", 1)
        if "httpGet" in probe:
            port = self.workload.ports[probe["httpGet"]["port"]]
            return await asyncio.to_thread(_http, f"http://{self.address}:{port}{probe['httpGet']['path']}", patience)
        return await _health(f"{self.address}:{probe['grpc']['port']}", probe["grpc"]["service"], patience)

    async def until(self, name: str) -> None:
        """Ask as often as kubelet would before it gives up, or, by readiness, for as long as a rollout may take."""
        probe = self.workload.container[name]
        attempts = 60 if name == "readinessProbe" else probe["failureThreshold"]
        for _ in range(attempts):
            if await self.probe(name):
                return
            assert self.running, f"{self.workload.title} ended: {self.tail()}"
            await asyncio.sleep(probe["periodSeconds"])
        raise AssertionError(f"{self.workload.title}: {name} fails: {self.tail()}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def end(self, patience: float) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        try:
            code = await asyncio.wait_for(self._process.wait(), patience)
            self._close_status()
            return code
        except TimeoutError:
            raise AssertionError(f"{self.workload.title} runs after {patience:g} s: {self.tail()}") from None

    async def hears(self, number: int) -> None:
        """Wait until process 1 has a handler for the signal: the kernel drops it before that."""
        status = Path(f"/proc/{self._inside}/status")

        def caught() -> bool:
            found = re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.MULTILINE)
            return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)

        await until(caught, 20)

    async def terminate(self, code: int = 0) -> float:
        """SIGTERM, as when the pod is deleted; the seconds it took. Fails if kubelet would have killed it."""
        began = time.monotonic()
        os.kill(self._inside, signal.SIGTERM)
        ended = await self.end(self.grace)
        assert ended == code, f"{self.workload.title} ended with {ended}: {self.tail()}"
        return time.monotonic() - began

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor ends while the block lasts."""
        os.kill(self._inside, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._inside, signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._close_status()

    def _close_status(self) -> None:
        if self._status is not None:
            self._status.close()
            self._status = None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


async def _health(address: str, service: str, patience: float) -> bool:
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            stub = HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = await stub.Check(HealthCheckRequest(service=service), timeout=patience)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


def _http(url: str, patience: float) -> bool:
    try:
        with urlopen(url, timeout=patience) as answer:
            return bool(200 <= answer.status < 400)
    except OSError:
        return False
