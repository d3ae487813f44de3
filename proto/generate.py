"""Generates gen/ from the protos, lints them, and checks both for drift and for breaking changes.

python proto/generate.py            write gen/
python proto/generate.py --lint     buf lint
python proto/generate.py --check    fail if gen/ differs, or if the protos break the wire of the last release
python proto/generate.py --release  write proto/release.binpb, the image later changes are compared with

The google/* protos come out of installed wheels, copied into build/ because buf reads folders only.
"""

import argparse
import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
BUILD = ROOT / "build" / "proto"
GEN = ROOT / "gen"
RELEASE = PROTO / "release.binpb"
BIN = Path(sys.executable).parent


def import_root() -> Path:
    """A folder with our protos and the google/* ones they import, which buf takes as one module."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(PROTO / "polymart", BUILD / "polymart")
    shutil.copy(PROTO / "buf.yaml", BUILD / "buf.yaml")
    wheel = Path(str(files("google.api").joinpath("annotations.proto"))).parent.parent
    wanted = {name for path in BUILD.rglob("*.proto") for name in imports(path) if name.startswith("google/")}
    while wanted:
        name = wanted.pop()
        target = BUILD / name
        if name.startswith("google/protobuf/") or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel.parent / name, target)
        wanted.update(imports(target))
    return BUILD


def imports(path: Path) -> list[str]:
    return re.findall(r'^import (?:public )?"([^"]+)";', path.read_text(), re.MULTILINE)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def buf(*arguments: str | Path, root: Path) -> None:
    run(BIN / "buf", *arguments, cwd=root)


def generate(target: Path) -> None:
    """Python stubs and their type stubs, for the polymart packages only."""
    root = import_root()
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(p.relative_to(root)) for p in (root / "polymart").rglob("*.proto"))
    services = [s for s in sources if s.endswith("_service.proto")]
    tool = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={root}"]
    plugins = [f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    run(*tool, plugins[0], f"--python_out={target}", f"--mypy_out=quiet:{target}", *sources)
    run(*tool, plugins[1], f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services)


def differences(left: Path, right: Path) -> list[str]:
    def names(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}

    both = names(left) & names(right)
    changed = [n for n in both if not filecmp.cmp(left / n, right / n, shallow=False)]
    return sorted({*changed, *(names(left) ^ names(right))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    for name in ("lint", "check", "release"):
        choice.add_argument(f"--{name}", action="store_true")
    chosen = parser.parse_args()
    if chosen.lint:
        buf("lint", root=import_root())
    elif chosen.release:
        buf("build", "-o", RELEASE, "--path", "polymart", root=import_root())
    elif chosen.check:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            if drift := differences(GEN, Path(folder)):
                sys.exit("gen/ differs from what proto/ generates; run `make proto`:\n  " + "\n  ".join(drift))
        if RELEASE.exists():
            buf("breaking", "--against", RELEASE, "--path", "polymart", root=BUILD)
    else:
        shutil.rmtree(GEN, ignore_errors=True)
        generate(GEN)


if __name__ == "__main__":
    main()
