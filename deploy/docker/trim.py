"""Remove from an environment what a server never opens: `python3 trim.py /opt/fovea`.

Path: pip in the Dockerfile → **trim** → compileall. Standard library only, and ldd, which every Debian has.

1. What UNUSED names. A pattern that matches nothing is an error: the library changed, and somebody has to look.
2. Bundled libraries (the folders `NAME.libs` of wheels) that no remaining file is linked to.
3. The lines of removed files in the wheels' RECORD, so that pip and scanners find what RECORD says.

Then every remaining library has to find all it is linked to. That the server still answers is for
`make images-check` to see.
"""

import csv
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

UNUSED = {
    "**/tests": "the libraries' own tests",
    "**/*.py[ix]": "types for checkers, and sources of what is compiled",
    "**/*.px[di]": "the same, for Cython",
    "**/*.a": "static libraries",
    "numpy/_core/include": "headers for C programs",
    "numpy/distutils": "builds Fortran and C programs",
    "numpy/f2py": "builds Fortran programs",
    "onnxruntime/backend": "needs the onnx package",
    "onnxruntime/capi/libonnxruntime.so.*": "for C programs; the Python module holds a second copy and opens only that",
    "onnxruntime/datasets": "example models",
    "onnxruntime/quantization": "export's work; needs the onnx package",
    "onnxruntime/tools": "export's work",
    "onnxruntime/transformers": "export's work",
    # A decoder that is not there cannot be attacked: of these formats the server reads none.
    "PIL/_avif.*.so": "AVIF images",
    "PIL/_imagingcms.*.so": "colour profiles",
    "PIL/_imagingft.*.so": "fonts",
    "PIL/_imagingtk.*.so": "windows",
}

UNUSED_IF_THERE = {
    "nvidia/**/include": "headers",
    "nvidia/**/*.alt.so*": "a second build of the run-time compiler, for callers that ask for it by name",
    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so": "TensorRT is not in the image",
}
"""What only the CUDA variant has."""

FROM_HOST = {"libcuda.so.1"}
"""The driver's own library: the container runtime mounts it."""

_LINK = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/\S+|not found)", re.MULTILINE)


def remove(site: pathlib.Path, patterns: Iterable[str]) -> list[str]:
    """Remove what matches, and return the patterns that matched nothing."""
    unmatched = []
    for pattern in patterns:
        paths = list(site.glob(pattern))
        if not paths:
            unmatched.append(pattern)
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # a folder above it may have matched too
    return unmatched


def libraries(site: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the ELF files of the environment."""
    for path in sorted(site.rglob("*.so*")):
        if path.is_file():
            with path.open("rb") as file:
                magic = file.read(4)
            if magic == b"\x7fELF":
                yield path


def links(site: pathlib.Path, library: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """Return what a library is linked to, directly or not: name → file, or None if there is none."""
    folders = {str(path.parent) for path in site.glob("nvidia/**/*.so*")}
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(sorted(folders))}
    found = subprocess.run(["ldd", library], env=environment, capture_output=True, text=True, check=True)
    return {
        match["name"]: None if match["path"] == "not found" else pathlib.Path(match["path"]).resolve()
        for match in _LINK.finditer(found.stdout)
    }


def remove_unlinked(site: pathlib.Path) -> None:
    """Remove bundled libraries that nothing is linked to."""
    bundled = {path.resolve() for path in site.glob("*.libs/*")}
    used = {
        path
        for library in libraries(site)
        if library.resolve() not in bundled
        for path in links(site, library).values()
        if path is not None
    }
    for path in bundled - used:
        path.unlink()


def missing_links(site: pathlib.Path) -> list[str]:
    """Return a line for each library that does not find what it is linked to."""
    return [
        f"{library.relative_to(site)} needs {name}"
        for library in libraries(site)
        for name, path in links(site, library).items()
        if path is None and name not in FROM_HOST
    ]


def correct_records(site: pathlib.Path) -> None:
    """Drop files that are gone from the lists of installed files."""
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="") as lines:
            rows = [row for row in csv.reader(lines) if (site / row[0]).exists()]
        with record.open("w", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerows(rows)


def trim(site: pathlib.Path) -> None:
    """Trim one folder of installed packages.

    Raises:
        ValueError: a pattern of UNUSED matches nothing, or a library misses what it is linked to.
    """
    if unmatched := remove(site, UNUSED):
        raise ValueError(f"nothing matches {', '.join(unmatched)} in {site}: correct UNUSED in trim.py")
    remove(site, UNUSED_IF_THERE)
    remove_unlinked(site)
    correct_records(site)
    if missing := missing_links(site):
        raise ValueError(f"libraries without what they are linked to: {'; '.join(missing)}")


def main() -> None:
    """Trim the environment named on the command line."""
    sites = list(pathlib.Path(sys.argv[1]).glob("lib/python3*/site-packages")) if len(sys.argv) == 2 else []
    if len(sites) != 1:
        sys.exit("usage: python3 trim.py ENVIRONMENT, a virtual environment with one lib/python3*/site-packages")
    try:
        trim(sites[0])
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
