"""What the engines have in common: embedded with a port and a data folder, or elsewhere behind a URL."""

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, urlsplit

from devstack.errors import EngineError, reason
from devstack.home import Home
from devstack.ports import HOST, is_free

POLL = 0.03
CHECK_PATIENCE = 5.0


class Engine(ABC):
    """One engine. With its `variable` set in the environment it is that server, and nothing is started.

    A subclass says how it is run (`prepare`, `command`) and how it is asked whether it works (`check`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    variable: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    example: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    # Seconds: to answer after its start, to end after it was asked to, and to be reached where it runs elsewhere.
    start_patience: ClassVar[float] = 40
    stop_patience: ClassVar[float] = 20
    reach_patience: ClassVar[float] = 5
    # What it may say as it ends at its start, that passes by itself.
    passing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, home: Home):
        self.home = home
        self.port = 0
        self.external = home.environ.get(self.variable) or None
        if self.external:
            self._validate(self.external)
        self.process = home.process(self.name, self.title, stop_signal=self.stop_signal, patience=self.stop_patience)

    @property
    def folder(self) -> Path:
        return self.home.folder / self.name

    @property
    def url(self) -> str:
        """Where clients with all rights reach it."""
        return self.external or self.local_url(self.port)

    @abstractmethod
    def local_url(self, port: int) -> str: ...

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What runs it in the foreground on `self.port`. Raises EngineError if the program is missing."""

    @abstractmethod
    async def check(self, url: str) -> None:
        """Speak its protocol with it once, within two seconds or so. Raises anything when it isn't ready."""

    def refused(self, error: Exception) -> str | None:
        """What to do about a failed check that waiting doesn't cure, else None."""
        return None

    async def prepare(self) -> None:
        """Make its folder and files."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def environ(self) -> dict[str, str]:
        return dict(self.home.environ)

    async def start(self) -> None:
        """Start it, or reach it where it runs elsewhere; returns when it answers. Raises EngineError."""
        if self.external:
            await self._reach(self.external)
            return
        self.home.progress(f"starting {self.title}")
        self.port, taken = self.home.ports.take(self.name)
        if taken is not None:
            self.home.progress(f"{self.title}: port {taken} is taken, moving to {self.port}")
        try:
            await self.prepare()
        except OSError as error:
            remedy = "make it writable, or name another folder in POLYMART_HOME"
            raise EngineError(self.title, f"{error.filename or self.folder}: {error.strerror}", remedy) from None
        await self._launch()
        if not self.process.running and "already in use" in self.process.last_lines().lower():
            # Somebody was given the port between the look and the start.
            self.port = self.home.ports.another(self.name)
            await self._launch()
        await self._wait_until_ready()

    async def restart(self) -> None:
        """Start it again on its port and data, where its clients look for it.

        Raises EngineError, also when somebody else took the port meanwhile.
        """
        self._require_embedded()
        if self.process.running:
            await self.stop()
        if not is_free(self.port):
            raise EngineError(self.title, f"port {self.port} is taken by another process", "stop that and try again")
        await self.prepare()
        await self._launch()
        await self._wait_until_ready()

    async def stop(self) -> None:
        """Ask it to stop and wait; one that doesn't is killed."""
        await self.process.stop()
        self.home.record()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and, with SIGKILL, SIGSTOP and SIGCONT, to its children. Waits for the end by SIGKILL."""
        self._require_embedded()
        if number == signal.SIGKILL:
            await self.process.kill()
            self.home.record()
        else:
            self.process.send(number)

    async def _launch(self) -> None:
        await self.process.start(self.command(), self.environ(), cwd=self.folder)
        self.home.record()

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_patience
        while self.process.running or await self._again(deadline):
            try:
                # Clients take seconds to notice that a server which refused them listens by now.
                await _listening(self.port)
                await asyncio.wait_for(self.check(self.url), CHECK_PATIENCE)
                return
            except Exception as error:
                if remedy := self.refused(error):
                    await self.process.stop()
                    raise EngineError(self.title, reason(error), remedy) from None
                if time.monotonic() > deadline:
                    await self.process.stop()
                    cause = f"doesn't answer {self.start_patience:.0f} s after its start ({reason(error)})"
                    raise EngineError(self.title, cause, f"read {self.process.log}") from None
            await asyncio.sleep(POLL)
        cause = f"ended with code {await self.process.wait()} at its start: {self.process.last_lines()}"
        raise EngineError(self.title, cause, f"read {self.process.log}")

    async def _again(self, deadline: float) -> bool:
        """Start it once more, if it ended for something that passes by itself."""
        # What is left of the one before may write into the log as well.
        said = self.process.last_lines(20)
        if not any(sign in said for sign in self.passing) or time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL)
        await self._launch()
        return True

    async def _reach(self, url: str) -> None:
        self.home.progress(f"reaching {self.title}")
        deadline = time.monotonic() + self.reach_patience
        while True:
            try:
                return await asyncio.wait_for(self.check(url), CHECK_PATIENCE)
            except Exception as error:
                if self.refused(error) or time.monotonic() > deadline:
                    cause = f"{place(url)}, named by {self.variable}, can't be used: {reason(error)}"
                    remedy = f"start it, or unset {self.variable} to get a local one"
                    raise EngineError(self.title, cause, remedy) from None
            await asyncio.sleep(0.2)

    def _validate(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in self.schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            remedy = f"write it like {self.example}"
            raise EngineError(self.title, f"{self.variable} is not a URL that it understands", remedy)

    def _require_embedded(self) -> None:
        if self.external:
            cause = f"runs elsewhere ({self.variable} is set)"
            raise EngineError(self.title, cause, "only what this stack started can be stopped or killed")


def place(url: str) -> str:
    """host:port of a URL: never its password."""
    parts: SplitResult = urlsplit(url)
    try:
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:  # several hosts
        return parts.netloc.rpartition("@")[2]


def loopback(port: int) -> str:
    return f"{HOST}:{port}"


async def _listening(port: int) -> None:
    _, writer = await asyncio.open_connection(HOST, port)
    writer.close()
    await writer.wait_closed()
