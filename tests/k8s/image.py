"""The image without a container engine: the build stage of the Dockerfile is run as it stands, in a sandbox."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.k8s.tools import ROOT

BUILD_PATIENCE = 180
CACHE = Path.home() / ".cache"


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile: "RUN", its options ("--mount=…"), the rest."""

    instruction: str
    options: tuple[str, ...]
    text: str


@dataclass(slots=True)
class Image:
    """What a container of it starts with. `trees` holds, by their path in the image, the folders that it adds."""

    trees: dict[str, Path]
    environ: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    user: str = ""
    workdir: str = "/"


def stages(dockerfile: str) -> list[list[Step]]:
    """The instructions of each stage, without its FROM and what stands before the first."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    found: list[list[Step]] = []
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.strip().partition(" ")
        words = rest.split()
        options = tuple(word for word in words if re.match(r"--(mount|from)=", word))
        text = rest
        for option in options:
            text = text.replace(option, "", 1)
        if instruction == "FROM":
            found.append([])
        elif found:
            found[-1].append(Step(instruction, options, text.strip()))
    return found


def build(folder: Path) -> Image:
    """Build in `folder`, which is left to the caller. Raises AssertionError with what a step said."""
    building, final = stages((ROOT / "Dockerfile").read_text())
    made = {name: folder / name for name in ("build", "opt", "tools")}
    for tree in made.values():
        tree.mkdir()
    environ: dict[str, str] = {}
    for step in building:
        if step.instruction == "ENV":
            environ |= _assignments(step.text, environ)
        elif step.instruction == "COPY":
            *sources, _ = step.text.split()
            for source in sources:
                _copy(source, made["build"])
        elif step.instruction == "RUN":
            run(step, made, environ)
        else:
            assert step.instruction == "WORKDIR", f"the sandbox doesn't know {step.instruction}"
    image = Image({"/opt/polymart": made["opt"] / "polymart"})
    for step in final:
        match step.instruction:
            case "ENV":
                image.environ |= _assignments(step.text, {"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin"})
            case "USER":
                image.user = step.text
            case "WORKDIR":
                image.workdir = step.text
            case "ENTRYPOINT":
                image.entrypoint = json.loads(step.text)
            case "COPY":
                assert step.text == "/opt/polymart /opt/polymart", f"the sandbox doesn't know {step.text}"
            case other:
                raise AssertionError(f"the sandbox doesn't know {other}")
    return image


def system(without: Collection[str]) -> list[str]:
    """Options for bwrap: this machine's own root, read-only, but for some of its folders."""
    options: list[str] = []
    for entry in Path("/").iterdir():
        if entry.is_symlink():
            options += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.is_dir() and entry.name not in without:
            options += ["--ro-bind", str(entry), str(entry)]
    return options


def _assignments(text: str, known: dict[str, str]) -> dict[str, str]:
    pairs = (word.split("=", 1) for word in text.split())
    return {name: re.sub(r"\$(\w+)", lambda m: known.get(m[1], ""), value) for name, value in pairs}


def _copy(source: str, target: Path) -> None:
    """As COPY does, of what .dockerignore lets through; its later patterns win."""
    patterns = [p for p in (ROOT / ".dockerignore").read_text().splitlines() if p and not p.startswith("#")]

    def ignored(path: Path) -> bool:
        parts = path.relative_to(ROOT).parts
        out = False
        for pattern in patterns:
            bare = pattern.removeprefix("!").removeprefix("**/")
            over = parts if pattern.startswith("**/") else parts[:1]
            if any(fnmatch(part, bare) for part in over):
                out = not pattern.startswith("!")
        return out

    def skip(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if ignored(Path(folder) / name)]

    if source == ".":
        shutil.copytree(ROOT, target, dirs_exist_ok=True, ignore=skip)
    else:
        assert not ignored(ROOT / source), f"COPY {source}, which .dockerignore leaves out"
        shutil.copy2(ROOT / source, target)


def run(step: Step, made: dict[str, Path], environ: dict[str, str]) -> None:
    """RUN on this machine's own system, read-only, with the stage's folders in place of the image's."""
    caches = [option.split("target=")[1].split(",")[0] for option in step.options]
    CACHE.mkdir(exist_ok=True)
    command = ["bwrap", *system({"dev", "proc", "tmp", *made}), "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for cache in caches:
        command += ["--bind", str(CACHE), cache if Path(cache).exists() else str(CACHE)]
    for name, tree in made.items():
        command += ["--bind", str(tree), f"/{name}"]
    # The interpreter may live under a folder that one of those stands in place of.
    command += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    command += ["--setenv", "PATH", f"{sys.base_prefix}/bin:/usr/bin:/bin"]
    for name, value in environ.items():
        command += ["--setenv", name, value]
    command += ["--chdir", "/build", "--die-with-parent", "--unshare-pid", "sh", "-euc", step.text]
    result = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_PATIENCE, check=False)
    assert result.returncode == 0, f"RUN {step.text}\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
