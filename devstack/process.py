"""Child processes: each in a session of its own, signalled only while it is still the one that was started."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil  # type: ignore[import-untyped]

from devstack.errors import EngineError, reason

LOG_LIMIT = 5 * 2**20


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for certain: its pid and its start in clock ticks since boot, which no clock change moves."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now; None if there is none, or only a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, _start_time(process))
        except (psutil.Error, OSError, IndexError):
            return None

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def send(self, number: int) -> bool:
        """Signal it, and its children where the signal freezes, thaws or kills. False if it is gone already.

        A server with a process per connection goes on answering while its parent alone is stopped.
        """
        if not self.alive:
            return False
        family = self.family() if number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL) else [self.pid]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return True

    def family(self) -> list[int]:
        """Its pid and its descendants', itself first."""
        try:
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        except psutil.Error:
            return [self.pid]

    def memory(self) -> int:
        """Proportional set size of the process and its descendants in bytes; shared pages count once."""
        total = 0
        for pid in self.family() if self.alive else ():
            with contextlib.suppress(psutil.Error, OSError):
                used = psutil.Process(pid).memory_full_info()
                total += int(getattr(used, "pss", used.rss))
        return total


def _start_time(process: psutil.Process) -> float:
    stat = Path(f"/proc/{process.pid}/stat")
    if stat.exists():
        return float(stat.read_text().rpartition(")")[2].split()[19])
    return float(process.create_time())


def wait_until_gone(identities: Sequence[Identity], patience: float) -> list[Identity]:
    """Block until none is alive or `patience` seconds have passed; returns those that still live."""
    deadline = time.monotonic() + patience
    while alive := [identity for identity in identities if identity.alive]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return alive


class Process:
    """A command that can be started, stopped and started again; its output is appended to `log`."""

    def __init__(self, name: str, title: str, log: Path, *, stop_signal: int = signal.SIGTERM, patience: float = 20):
        self.name = name
        self.title = title
        self.log = log
        self.stop_signal = stop_signal
        self.patience = patience
        self.identity: Identity | None = None
        # True from the moment somebody asked for its end, so that a supervisor leaves it alone.
        self.stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(
        self, command: Sequence[str | Path], environ: Mapping[str, str], *, cwd: Path | None = None
    ) -> None:
        """Run the command in a session of its own, where the terminal's Ctrl-C doesn't reach it.

        Raises EngineError when it can't be executed.
        """
        self.stopping = False
        try:
            with self._open_log() as output:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    env=dict(environ),
                    cwd=cwd,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            cause = f"{command[0]} can't be run: {error.strerror or reason(error)}"
            raise EngineError(self.title, cause, "install the `stack` extra of this package again") from None
        self.identity = Identity.of(self._process.pid)

    def _open_log(self) -> BinaryIO:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        file = self.log.open("ab")
        self._log_start = file.tell()
        return file

    def last_lines(self, count: int = 3) -> str:
        """What it said last since this start, on one line."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, self.log.stat().st_size - 4_000))
            lines = file.read().decode(errors="replace").splitlines()
        return " | ".join([line.strip() for line in lines if line.strip()][-count:]) or "it said nothing"

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        return await self._process.wait() if self._process is not None else 0

    def send(self, number: int) -> None:
        """Deliver a signal. A deadly one counts as asked for: no supervisor starts the process again."""
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self.stopping = True
        if self.running and self.identity is not None:
            self.identity.send(number)

    async def stop(self) -> bool:
        """Ask it to stop, wait `patience` seconds, then kill it. False if it had to be killed."""
        self.stopping = True
        if not self.running or self.identity is None:
            return True
        family = [found for pid in self.identity.family() if (found := Identity.of(pid))]
        self.identity.send(signal.SIGCONT)
        self.identity.send(self.stop_signal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), self.patience)
        if graceful := not self.running:
            return graceful
        await self.kill(family)
        return False

    async def kill(self, family: Sequence[Identity] = ()) -> None:
        """End it at once with its children, and wait until all of them are gone."""
        self.stopping = True
        if not self.running or self.identity is None:
            return
        known = {*family, *(found for pid in self.identity.family() if (found := Identity.of(pid)))}
        for identity in known:
            identity.send(signal.SIGKILL)
        await self.wait()
        await asyncio.to_thread(wait_until_gone, sorted(known, key=lambda i: i.pid), 10)
