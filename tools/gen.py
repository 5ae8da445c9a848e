"""Generate the Python stubs beside the .proto files (`python3 dev.py gen [--check]`).

The output is committed, so nobody who installs Runkon needs protoc, and `--check` refuses a
commit in which it differs from what the .proto files say. Modules are imported by the names protoc
gives them (`runkon.v1.runs_pb2`): `protos/` is a source root, nothing is rewritten.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import environments

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
REQUIREMENTS = ROOT / "tools" / "gen-requirements.txt"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate() -> dict[Path, bytes]:
    """What protoc makes of the .proto files, by path relative to `protos/`.

    A service module of a file without services says nothing and is left out.
    """
    venv = Path(os.environ.get("RUNKON_GEN_VENV", ROOT / ".gen"))
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python = environments.ensure(venv, "generator", wanted, ["-r", str(REQUIREMENTS)])
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    if not sources:
        raise SystemExit(f"no .proto file under {PROTOS}")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                *(str(python), "-m", "grpc_tools.protoc", f"-I{PROTOS}"),
                *(f"--python_out={scratch}", f"--mypy_out=quiet:{scratch}"),
                *(f"--grpc_python_out={scratch}", f"--mypy_grpc_out=quiet:{scratch}"),
                *sources,
            ],
            # protoc finds the mypy plugins on the PATH.
            env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            check=True,
        )
        made = _read(Path(scratch))
    return {path: body for path, body in made.items() if not _is_hollow(path, made)}


def _is_hollow(path: Path, made: dict[Path, bytes]) -> bool:
    """Whether it is the service module of a file that declares no service."""
    return path.stem.endswith("_pb2_grpc") and b"\nclass " not in made[path.with_suffix(".py")]


def committed() -> dict[Path, bytes]:
    """The generated files in the work tree, by path relative to `protos/`."""
    return _read(PROTOS)


def _read(folder: Path) -> dict[Path, bytes]:
    found = (path for pattern in GENERATED for path in folder.rglob(pattern))
    return {path.relative_to(folder): path.read_bytes() for path in found}


def write(wanted: dict[Path, bytes]) -> None:
    """Make the work tree's generated files equal to `wanted`, touching only those that differ."""
    present = committed()
    for path in present.keys() - wanted.keys():
        (PROTOS / path).unlink()
    for path, body in wanted.items():
        if present.get(path) != body:
            (PROTOS / path).write_bytes(body)


def main() -> int:
    """Write the generated files, or with --check only compare them; 1 when they differ."""
    parser = argparse.ArgumentParser(prog="dev.py gen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    arguments = parser.parse_args()
    try:
        wanted = generate()
    except environments.EnvironmentNotMadeError as reason:
        print(reason, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        return 1  # protoc has said why
    if not arguments.check:
        write(wanted)
        return 0
    present = committed()
    stale = sorted(
        str(path)
        for path in wanted.keys() | present.keys()
        if wanted.get(path) != present.get(path)
    )
    if stale:
        print(
            "generated code is stale, run `python3 dev.py gen`:",
            *stale,
            sep="\n  ",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
