"""A data folder and who holds it: its lock, ports, passwords, and the record of what runs in it."""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from devstack.errors import EngineError, reason
from devstack.ports import Ports
from devstack.process import Identity, Process, wait_until_gone

LEFTOVER_PATIENCE = 40.0
PASSWORDS = "passwords.json"


class Home:
    """The data folder of one stack, held by one supervisor at a time.

    `environ` is what the processes inherit; `progress` is told in a few words what goes on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str] = os.environ,
        progress: Callable[[str], None] | None = None,
    ):
        self.folder = folder.absolute()
        # Processes may keep their compiled modules: twenty that each compile everything would take half a minute.
        self.environ = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.progress: Callable[[str], None] = progress or (lambda _: None)
        # What load() tells those who look for this stack, beside the processes.
        self.facts: dict[str, object] = {}
        self._processes: list[Process] = []
        self._lock: int | None = None
        self._watchdog: asyncio.subprocess.Process | None = None
        self._ports: Ports | None = None

    @property
    def ports(self) -> Ports:
        if self._ports is None:
            self._ports = Ports(self.folder / "ports.json")
        return self._ports

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def process(self, name: str, title: str, *, stop_signal: int = signal.SIGTERM, patience: float = 20) -> Process:
        """A process that is kept in the record from its start on. Services come before the engines."""
        made = Process(name, title, self.log(name), stop_signal=stop_signal, patience=patience)
        self._processes.append(made)
        return made

    async def open(self) -> None:
        """Take the folder, and stop what a supervisor that died left in it.

        Raises EngineError when the folder can't be used or another stack runs in it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "logs").mkdir(exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            a_file = isinstance(error, FileExistsError)
            cause = f"{error.filename} is a file" if a_file else f"can't be written: {error.strerror}"
            remedy = f"{'' if a_file else 'make it writable, or '}name another folder in POLYMART_HOME"
            raise EngineError(f"data folder {self.folder}", cause, remedy) from None
        deadline = time.monotonic() + LEFTOVER_PATIENCE
        while (lock := try_lock(self.folder)) is None:
            # Without its supervisor, the lock is held by the watchdog, which is tidying up.
            if supervisor_alive(self.folder) or time.monotonic() > deadline:
                raise running(self.folder)
            await asyncio.sleep(0.1)
        self._lock = lock
        if read_state(self.folder):
            self.progress("stopping what an earlier stack left behind")
            await asyncio.to_thread(stop_recorded, self.folder)
        try:
            self._passwords()
        except EngineError:
            await self.close()
            raise
        self.record()
        await self._start_watchdog()

    async def close(self) -> None:
        """Give the folder back; to be called when every process has been stopped."""
        if self._lock is None:
            return
        (self.folder / "stack.json").unlink(missing_ok=True)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            await self._watchdog.wait()
        os.close(self._lock)
        self._lock = None
        self._processes.clear()

    async def _start_watchdog(self) -> None:
        """A process that stops the rest when this one dies without a word, as by `kill -9`."""
        self._watchdog = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "devstack.watchdog", str(self.folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=python_environment(self.environ),
        )

    def record(self) -> None:
        """Write what runs, so that other processes find it and can stop it. Nothing while the folder isn't held."""
        if self._lock is None:
            return
        supervisor = Identity.of(os.getpid())
        assert supervisor is not None
        state = {
            "supervisor": _as_json(supervisor),
            "processes": {
                p.name: {**_as_json(p.identity), "stop_signal": int(p.stop_signal), "patience": p.patience}
                for p in self._processes
                if p.running and p.identity is not None
            },
            **self.facts,
        }
        write_private(self.folder / "stack.json", json.dumps(state, indent=2))

    @property
    def identity(self) -> str:
        """What tells this folder from every other, wherever it is moved to; no secret."""
        return self.password("identity")

    def password(self, name: str) -> str:
        """The password kept in this folder under `name`; made at first use."""
        known = self._passwords()
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            write_private(self.folder / PASSWORDS, json.dumps(known, indent=2))
        return known[name]

    def _passwords(self) -> dict[str, str]:
        file = self.folder / PASSWORDS
        try:
            known = json.loads(file.read_text()) if file.exists() else {}
            if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
                raise ValueError("these are no passwords by their names")
        except (OSError, ValueError) as error:
            remedy = f"restore it, or delete {self.folder} with all its data"
            raise EngineError(str(file), f"can't be read: {reason(error)}", remedy) from None
        return known


def python_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with this project's own folders on Python's path, for a child that runs one of its modules."""
    root = Path(__file__).resolve().parent.parent
    paths = [str(root), str(root / "gen"), environ.get("PYTHONPATH", "")]
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def write_private(file: Path, text: str) -> None:
    """Replace the file at once; only its owner may read it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with open(draft, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        output.write(text)
    draft.replace(file)


def try_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder until it is closed; None if somebody else holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def read_state(folder: Path) -> dict[str, object]:
    """What record() wrote; empty if nothing runs or ever ran here."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        state = json.loads((folder / "stack.json").read_text())
        if isinstance(state, dict):
            return state
    return {}


def identities(state: Mapping[str, object]) -> dict[str, tuple[Identity, int, float]]:
    """name -> (process, signal that stops it, seconds it may take), as recorded."""
    found = {}
    recorded = state.get("processes")
    for name, entry in recorded.items() if isinstance(recorded, dict) else ():
        found[name] = (_identity(entry), int(entry["stop_signal"]), float(entry["patience"]))
    return found


def supervisor(state: Mapping[str, object]) -> Identity | None:
    entry = state.get("supervisor")
    return _identity(entry) if isinstance(entry, dict) else None


def supervisor_alive(folder: Path) -> bool:
    holder = supervisor(read_state(folder))
    return holder is not None and holder.alive


def running(folder: Path) -> EngineError:
    holder = supervisor(read_state(folder))
    who = f"process {holder.pid}" if holder else "another process"
    remedy = f"stop it with `POLYMART_HOME={folder} polymart down`, or name another folder in POLYMART_HOME"
    return EngineError(f"data folder {folder}", f"a stack already runs here, started by {who}", remedy)


def stop_recorded(folder: Path) -> bool:
    """Stop, services before engines, what the record names and what is still the same process. False if nothing was."""
    processes = identities(read_state(folder))
    services = [entry for name, entry in processes.items() if name.split("-")[0].endswith("_svc")]
    engines = [entry for name, entry in processes.items() if not name.split("-")[0].endswith("_svc")]
    stopped = any([_stop_together(services), _stop_together(engines)])
    (folder / "stack.json").unlink(missing_ok=True)
    return stopped


def _stop_together(entries: Sequence[tuple[Identity, int, float]]) -> bool:
    members = [
        member
        for identity, _, _ in entries
        if identity.alive
        for pid in identity.family()
        if (member := Identity.of(pid))
    ]
    asked = False
    for identity, number, _ in entries:
        identity.send(signal.SIGCONT)
        asked = identity.send(number) or asked
    if asked:
        patience = max(seconds for _, _, seconds in entries)
        for identity in wait_until_gone([identity for identity, _, _ in entries], patience):
            identity.send(signal.SIGKILL)
        for member in wait_until_gone(members, 5):
            member.send(signal.SIGKILL)
    return asked


def _as_json(identity: Identity) -> dict[str, float]:
    return {"pid": identity.pid, "started": identity.started}


def _identity(entry: Mapping[str, object]) -> Identity:
    return Identity(int(str(entry["pid"])), float(str(entry["started"])))
