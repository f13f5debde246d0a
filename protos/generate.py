"""Generates the *_pb2 modules: `python -m protos.generate` writes them, `--check` compares.

Mutable state: none; writes only the generated files beside the .proto files.
"""

import pathlib
import re
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("model_config", "inference", "manifest", "images", "graph", "rpc")
WITH_SERVICE = ("inference", "images")

# Each must match exactly once in a *_pb2.py, or the generator has changed and a person must look.
_POOL_EDITS = (
    (
        r"^from google\.protobuf import descriptor_pool as _descriptor_pool$",
        "from protos.pool import POOL as _POOL",
    ),
    (r"_descriptor_pool\.Default\(\)\.AddSerializedFile\(", "_POOL.AddSerializedFile("),
)


class GeneratorError(Exception):
    """protoc failed, or wrote something that the edits do not fit."""


def _run_protoc(out: pathlib.Path, name: str) -> None:
    services = [f"--grpc_python_out={out}"] if name in WITH_SERVICE else []
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{ROOT}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", *services]
    if protoc.main(["protoc", *arguments, f"protos/{name}.proto"]) != 0:
        raise GeneratorError(f"protoc failed on protos/{name}.proto; its message is above")


def _into_private_pool(text: str, name: str) -> str:
    for pattern, replacement in _POOL_EDITS:
        text, hits = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if hits != 1:
            raise GeneratorError(f"{name}_pb2.py: {pattern!r} matched {hits} times, expected 1")
    return text


def generate() -> dict[str, str]:
    """Return the generated files: path relative to the root → text."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        for name in SOURCES:
            _run_protoc(out, name)
            module = out / "protos" / f"{name}_pb2.py"
            module.write_text(_into_private_pool(module.read_text(), name))
        return {str(path.relative_to(out)): path.read_text() for path in sorted((out / "protos").iterdir())}


def main() -> int:
    """Write the files, or with --check name those that differ; the exit status."""
    files = generate()
    if "--check" not in sys.argv[1:]:
        for path, text in files.items():
            (ROOT / path).write_text(text)
        return 0
    stale = [path for path, text in files.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    for path in stale:
        print(f"{path} differs from its .proto file: run `make protos` and commit the result")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
