"""How other processes find a stack that runs, and stop it."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import EngineError
from devstack.home import identities, read_state, running, stop_recorded, supervisor, supervisor_alive, try_lock
from devstack.process import wait_until_gone

STOP_PATIENCE = 90.0


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: POLYMART_HOME, or `.polymart` in the current folder."""
    return Path(environ.get("POLYMART_HOME") or ".polymart").absolute()


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where everything of a running stack is. `auditors`: owner ("order", …) -> read-only PostgreSQL URL;
    `search_settings`: what search_svc is told of its engine, by variable without the prefix."""

    folder: Path
    services: Mapping[str, str]
    metrics: Mapping[str, str]
    nats_url: str
    mongodb_url: str
    elasticsearch_url: str
    search_settings: Mapping[str, str]
    smtp_address: str
    mailbox: Path
    auditors: Mapping[str, str]

    def address(self, service: str) -> str:
        """host:port of its gRPC server. Raises EngineError if it isn't part of this stack."""
        return self._of(self.services, service)

    def metrics_address(self, service: str) -> str:
        """host:port of its metrics."""
        return self._of(self.metrics, service)

    def auditor_urls(self) -> dict[str, str]:
        """Owner ("order", "inventory", "payment", "customer", "notification", "provider") -> read-only URL."""
        return dict(self.auditors)

    def endpoints(self) -> dict[str, str]:
        """What a person may want to know: services, then engines; no passwords."""
        return {
            **self.services,
            "NATS": self.nats_url.rpartition("@")[2].removeprefix("nats://"),
            "MongoDB": self.mongodb_url.rpartition("@")[2].removeprefix("mongodb://").partition("/")[0],
            "Elasticsearch": self.elasticsearch_url.rpartition("@")[2].removeprefix("http://"),
            "PostgreSQL": self.auditors["order"].rpartition("@")[2].partition("/")[0],
            "SMTP sink": self.smtp_address,
            "mails": str(self.mailbox),
        }

    def memory(self) -> dict[str, int]:
        """Proportional set size of each process, with its children, in bytes; replicas as `order_svc-2`."""
        return memory(self.folder)

    def _of(self, addresses: Mapping[str, str], service: str) -> str:
        if service not in addresses:
            raise EngineError(service, "is not part of the stack that runs here", "start it with `polymart up`")
        return addresses[service]


def memory(folder: Path) -> dict[str, int]:
    return {
        name: used for name, (process, _, _) in identities(read_state(folder)).items() if (used := process.memory())
    }


def load(data_dir: Path) -> StackInfo:
    """The stack that runs in this data folder. Raises EngineError if none does, or if it isn't ready yet."""
    state = read_state(data_dir)
    if not supervisor_alive(data_dir):
        raise EngineError("stack", f"none runs in {data_dir}", "start one with `polymart up`")
    facts = state.get("stack")
    if not isinstance(facts, dict):
        raise EngineError("stack", f"the one in {data_dir} is starting", "try again in a few seconds")
    return StackInfo(folder=data_dir, **{**facts, "mailbox": Path(facts["mailbox"])})


def refuse_if_running(data_dir: Path) -> None:
    """Raises EngineError while anything of a stack runs in the folder."""
    if not data_dir.is_dir():
        return
    lock = try_lock(data_dir)
    if lock is not None:
        os.close(lock)
    if lock is None or any(process.alive for process, _, _ in identities(read_state(data_dir)).values()):
        raise running(data_dir)


async def stop_running(data_dir: Path) -> bool:
    """Stop the stack of this data folder, whichever process started it; False if none ran.

    Its supervisor is asked to do it in order; if that is gone, or goes without doing it, what it started is stopped
    here. Raises EngineError if it doesn't stop.
    """
    return await asyncio.to_thread(_stop_running, data_dir)


def _stop_running(data_dir: Path) -> bool:
    state = read_state(data_dir)
    if not state:
        return False
    holder = supervisor(state)
    asked = holder is not None and holder.pid != os.getpid() and holder.send(signal.SIGTERM)
    if holder is not None and wait_until_gone([holder], STOP_PATIENCE):
        cause = f"process {holder.pid} doesn't stop it within {STOP_PATIENCE:.0f} s"
        raise EngineError(f"data folder {data_dir}", cause, f"kill {holder.pid} and try again")
    left = [process for process, _, _ in identities(state).values() if process.alive]
    deadline = time.monotonic() + STOP_PATIENCE
    # Without its supervisor the lock is the watchdog's, which is at it and releases the lock by ending.
    while (lock := try_lock(data_dir)) is None:
        if supervisor_alive(data_dir):
            return asked or bool(left)  # another stack has the folder by now
        if time.monotonic() > deadline:
            raise EngineError(f"data folder {data_dir}", "its watchdog doesn't end", "look for what still runs there")
        time.sleep(0.02)
    try:
        return stop_recorded(data_dir) or asked or bool(left)
    finally:
        os.close(lock)
