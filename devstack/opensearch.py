"""OpenSearch, with Lucene as in production: one node on loopback whose data survives, run by any Java from 21 on."""

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from devstack.engine import loopback
from devstack.errors import EngineError, reason
from devstack.home import Home
from devstack.jars import Java, cache_folder, fetched, find_java, one_at_a_time, read_lock
from devstack.search import SearchServer

FILES = Path(__file__).parent
LOCK = FILES / "opensearch.lock"
SOURCE = FILES / "OpenSearchNode.java"
MAIN = SOURCE.stem
# The first compiler alone, and one collector thread: it starts and answers sooner where cores are few.
JVM = (
    *("-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable"),
    *("-Xlog:all=error:stderr", "--enable-native-access=ALL-UNNAMED", "-Dfile.encoding=UTF-8"),
)
TRAINING_PATIENCE = 120.0
SETTINGS = """\
cluster.name: polymart
node.name: polymart
network.host: 127.0.0.1
transport.port: 0
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: false
"""
LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1.} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class OpenSearch(SearchServer):
    """The same API as SearchServer's, by OpenSearch. Its data are in a folder of their own."""

    title = "OpenSearch"
    # A machine that does a lot else takes its time with a Java that starts.
    start_patience: ClassVar[float] = 120

    async def check(self, url: str) -> None:
        await super().check(url)
        if not self.external:
            # It answers before it has read what indices it has, and would say that there are none.
            health = await asyncio.to_thread(
                urlopen, f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s", None, 3
            )
            health.close()

    async def prepare(self) -> None:
        await asyncio.to_thread(self._prepare)

    def command(self) -> Sequence[str | Path]:
        java = find_java(self.title, self.home.environ)
        return _command(java, self._jars, self._archive(java), self.port, self._store)

    def environ(self) -> dict[str, str]:
        # Options meant for other programs would change this one.
        return {k: v for k, v in super().environ().items() if k not in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")}

    def _prepare(self) -> None:
        java = find_java(self.title, self.home.environ)
        configure(self._store)
        with one_at_a_time(self._jars):
            fetched(self.title, self._jars, read_lock(LOCK), self.home.environ, self.home.progress)
            if not (self._jars / f"{MAIN}.jar").exists():
                self._compile(java)
            if not self._archive(java).exists():
                self.home.progress(f"{self.title}: making its start short, once")
                self._train(java)

    @property
    def _store(self) -> Path:
        return self.folder / "opensearch"

    @property
    def _jars(self) -> Path:
        pinned = hashlib.sha256(LOCK.read_bytes() + SOURCE.read_bytes()).hexdigest()[:16]
        return cache_folder(self.home.environ) / f"opensearch-{pinned}"

    def _archive(self, java: Java) -> Path:
        """Of classes as this very Java has them in memory, as a file that it maps."""
        which = hashlib.sha256(f"{java.program} {java.told} {JVM}".encode()).hexdigest()[:16]
        return self._jars / f"{which}.jsa"

    def _compile(self, java: Java) -> None:
        """By a compiler that is a jar: not every Java comes with one."""
        (compiler,) = self._jars.glob("ecj-*.jar")
        with tempfile.TemporaryDirectory(dir=self._jars) as draft:
            options = ("-source", "21", "-target", "21", "-nowarn", "-proc:none", "-d", draft, "-cp", _path(self._jars))
            self._run([java.program, *JVM, "-jar", compiler, *options, SOURCE], "its start can't be compiled")
            jar = Path(draft) / "draft.jar"
            with zipfile.ZipFile(jar, "w") as packed:
                for file in sorted(Path(draft).glob("*.class")):
                    packed.write(file, file.name)
            jar.rename(self._jars / f"{MAIN}.jar")

    def _train(self, java: Java) -> None:
        """Start and stop one to learn which classes it needs, and put them into the archive.

        Without an archive it only starts slower: a fault is told, and what can be done without it goes on.
        """
        with tempfile.TemporaryDirectory(dir=self._jars) as draft:
            folder, listed, archive = Path(draft) / "node", Path(draft) / "classes", Path(draft) / "archive"
            configure(folder)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = _command(java, self._jars, None, port, folder)
            node = subprocess.Popen(
                [command[0], f"-XX:DumpLoadedClassList={listed}", *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environ(),
            )
            try:
                _wait_for(f"http://{loopback(port)}", node)
            finally:
                node.terminate()
                try:
                    node.wait(20)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()
            dump = ("-Xshare:dump", f"-XX:SharedClassListFile={listed}", f"-XX:SharedArchiveFile={archive}")
            options = [option for option in JVM if not option.startswith("-Xshare")]
            try:
                self._run([java.program, *options, *dump, "-cp", _path(self._jars)], "its archive can't be made")
                shutil.move(archive, self._archive(java))
            except (EngineError, OSError) as error:
                self.home.progress(f"{self.title}: starts without an archive of its classes: {reason(error)}")

    def _run(self, command: Sequence[str | Path], failure: str) -> None:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TRAINING_PATIENCE, env=self.environ()
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(
                self.title, f"{failure}: {reason(error)}", f"delete {self._jars}, and try again"
            ) from None
        if done.returncode:
            said = (done.stderr or done.stdout)[-300:]
            raise EngineError(self.title, f"{failure}: {said}", f"delete {self._jars}, and try again")


def configure(folder: Path) -> None:
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "opensearch.yml").write_text(SETTINGS)
    (folder / "config" / "log4j2.properties").write_text(LOGGING)


def _path(jars: Path) -> str:
    """In one order, as an archive wants it."""
    return os.pathsep.join(str(jar) for jar in sorted(jars.glob("*.jar")) if not jar.name.startswith("ecj-"))


def _command(java: Java, jars: Path, archive: Path | None, port: int, folder: Path) -> list[str | Path]:
    mapped = [f"-XX:SharedArchiveFile={archive}"] if archive is not None and archive.exists() else []
    return [java.program, *JVM, *mapped, "-cp", _path(jars), MAIN, str(port), folder]


def _wait_for(url: str, node: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TRAINING_PATIENCE
    while node.poll() is None and time.monotonic() < deadline:
        try:
            urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.05)


def main() -> None:
    """Fetch and prepare it ahead of its first start: `python -m devstack.opensearch`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            OpenSearch(Home(Path(folder), progress=lambda text: print(text, file=sys.stderr)))._prepare()  # noqa: T201
        except EngineError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
