"""Two bases made from Debian's packages, because there is no registry to pull one from.

Path: **bases** → images. Each is made once and kept as a tar file:

1. `debian`: debootstrap's smallest Debian with python3 and venv, without documentation, as Docker's slim images are.
   Build and serve.
2. `small`: of the same, only what Python needs to run: no shell, no package manager. Serve only. It stands for
   "distroless" images, and like those it lists its packages in /var/lib/dpkg/status.d, for scanners.
"""

import hashlib
import pathlib
import shutil
import subprocess

from deploy.docker.check import steps

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
HOST_CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
"""Trusted in the base too: where the way to PyPI leads through a proxy of one's own, its certificate is among them."""

SMALL_PACKAGES = (
    "base-files",
    "ca-certificates",
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "media-types",
    "python3-minimal",
    "python3.11",
    "python3.11-minimal",
    "tzdata",
    "zlib1g",
)
_SMALL_EXTRA = (
    "etc/group",
    "etc/ld.so.cache",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/ssl/certs/ca-certificates.crt",
    "tmp",
)
_LEFT_OUT = ("usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man")
_NOT_TO_SERVE = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "turtledemo")
_EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "tmp")
_RECIPE = "1"  # to be raised when this module makes something else of the same packages


def make(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return name → tar file, made unless they are there.

    Raises:
        CheckFailed: debootstrap failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"base-{name}-{_key()}.tar" for name in ("debian", "small")}
    if not all(file.exists() for file in files.values()):
        tree = folder / "base"
        shutil.rmtree(tree, ignore_errors=True)
        with steps.step(f"debootstrap: Debian {SUITE} with {', '.join(PACKAGES)}"):
            _bootstrap(tree, folder / "debootstrap.log")
            _pack(tree, ["."], files["debian"])
            _pack(tree, _small_paths(tree), files["small"])
        shutil.rmtree(tree)
    return files


def _key() -> str:
    parts = [_RECIPE, SUITE, *PACKAGES, *SMALL_PACKAGES, *_SMALL_EXTRA, *_LEFT_OUT, *_NOT_TO_SERVE, *_EMPTIED]
    return hashlib.sha256(" ".join(parts).encode() + HOST_CERTIFICATES.read_bytes()).hexdigest()[:12]


def _bootstrap(tree: pathlib.Path, log: pathlib.Path) -> None:
    include = f"--include={','.join(PACKAGES)}"
    steps.logged(["debootstrap", "--variant=minbase", include, SUITE, str(tree), MIRROR], log, limit_s=900)
    for name in _LEFT_OUT:
        _empty(tree / name, keep="copyright")
    for name in _EMPTIED:
        _empty(tree / name)
    shutil.copyfile(HOST_CERTIFICATES, tree / "etc/ssl/certs/ca-certificates.crt")


def _empty(folder: pathlib.Path, keep: str | None = None) -> None:
    """Remove all files and links below a folder, but those of one name: licences have to stay."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or path.is_file():
            if path.name != keep:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _small_paths(tree: pathlib.Path) -> list[str]:
    """Return what the small base has of the tree; writes its status.d there."""
    status = tree / "var/lib/dpkg/status.d"
    status.mkdir()
    paths = {"bin", "lib", "lib64", "sbin", *_SMALL_EXTRA}  # the first four are links into /usr
    for package in SMALL_PACKAGES:
        (status / package).write_text(steps.output(["chroot", str(tree), "dpkg-query", "-s", package]))
        paths.add(f"var/lib/dpkg/status.d/{package}")
        listed = steps.output(["chroot", str(tree), "dpkg-query", "-L", package]).splitlines()
        paths |= {_real(tree, path) for path in listed if _is_wanted(tree, path)}
    paths |= {_real(tree, f"/{path.relative_to(tree)}") for path in (tree / "usr/lib/python3.11").rglob("*.pyc")}
    return sorted(path for path in paths if not any(f"/{name}/" in path for name in _NOT_TO_SERVE))


def _is_wanted(tree: pathlib.Path, path: str) -> bool:
    inside = tree / path.lstrip("/")
    return inside.is_symlink() or inside.is_file()


def _real(tree: pathlib.Path, path: str) -> str:
    """Return where the file is, without the leading slash: packages name /lib/x, which is /usr/lib/x."""
    folder, _, name = path.lstrip("/").rpartition("/")
    return str(((tree / folder).resolve() / name).relative_to(tree.resolve()))


def _pack(tree: pathlib.Path, paths: list[str], file: pathlib.Path) -> None:
    part = file.with_suffix(".part")
    command = ["tar", "-C", str(tree), "--no-recursion" if paths != ["."] else "--recursion", "-cf", str(part)]
    subprocess.run([*command, "--null", "-T", "-"], input="\0".join(paths).encode(), check=True, timeout=300)
    part.rename(file)
