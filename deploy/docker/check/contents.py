"""What an image holds: nothing that has no business there, and a list of packages with their sizes.

Path: images → **contents**. Reads files only; nothing of the image runs.
"""

import csv
import dataclasses
import email.parser
import pathlib
import re
import stat

from deploy.docker.check import steps

ENVIRONMENT = "opt/fovea"
FORBIDDEN_PACKAGES = {"torch", "torchvision", "onnx", "onnxscript", "matplotlib", "scikit-learn", "pip", "setuptools"}
FORBIDDEN_PROGRAMS = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|ld|as|make|strip)(-[\d.]+)?")
FORBIDDEN_PATHS = (
    "**/*.whl",
    "**/include/**/*.h",
    "**/tests/test_*.py",
)
CACHES = (
    "root/.cache",
    "home/*/.cache",
    "var/cache/apt/archives/*.deb",
    "var/lib/apt/lists/*_Packages*",
    "tmp/*",
    "src",
)
PRINTED = 12
PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", f"{ENVIRONMENT}/bin")


@dataclasses.dataclass(frozen=True)
class Package:
    """One installed package; `size` in bytes, bytecode included."""

    kind: str
    name: str
    version: str
    licence: str
    size: int


def check(root: pathlib.Path) -> None:
    """Look for what has no business in an image.

    Raises:
        CheckFailed: with a line for everything that was found.
    """
    found = [f"package {one.name}" for one in python_packages(root) if one.name.lower() in FORBIDDEN_PACKAGES]
    found += [
        f"program /{path.relative_to(root)}"
        for folder in PROGRAM_FOLDERS
        for path in (root / folder).glob("*")
        if FORBIDDEN_PROGRAMS.fullmatch(path.name)
    ]
    found += [f"/{path.relative_to(root)}" for one in FORBIDDEN_PATHS for path in (root / ENVIRONMENT).glob(one)]
    found += [f"cache /{path.relative_to(root)}" for one in CACHES for path in root.glob(one)]
    found += _wrong_rights(root)
    if found:
        more = f"\nand {len(found) - 20} more" if len(found) > 20 else ""
        raise steps.CheckFailed("the image holds what has no business there:\n" + "\n".join(found[:20]) + more)


def check_labels(labels: dict[str, str], version: str) -> None:
    """Look for OCI's standard labels.

    Raises:
        CheckFailed: one is missing, empty or left at its default, or the version is another.
    """
    wanted = ("title", "description", "licenses", "version", "revision", "base.name")
    given = {name: labels.get(f"org.opencontainers.image.{name}", "") for name in wanted}
    if wrong := [name for name, value in given.items() if value in ("", "unknown")]:
        raise steps.CheckFailed(f"labels without a value: {', '.join(wrong)}; expected one from a build argument")
    if given["version"] != version:
        raise steps.CheckFailed(f"label version is {given['version']}; pyproject.toml says {version}")


def _wrong_rights(root: pathlib.Path) -> list[str]:
    """Any UID must be able to read the server, and none to change it."""
    found = []
    for path in (root / ENVIRONMENT).rglob("*"):
        about = path.lstat()
        readable = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(about.st_mode) else 0)
        if stat.S_ISLNK(about.st_mode):
            continue
        if about.st_uid != 0 or about.st_mode & stat.S_IWOTH or about.st_mode & readable != readable:
            found.append(f"rights of /{path.relative_to(root)}: {stat.filemode(about.st_mode)}, owner {about.st_uid}")
    return found


def python_packages(root: pathlib.Path) -> list[Package]:
    """Return what pip installed into the environment, largest first."""
    packages = []
    for folder in (root / ENVIRONMENT).glob("lib/python3*/site-packages/*.dist-info"):
        about = email.parser.Parser().parsestr((folder / "METADATA").read_text())
        licence = about["License-Expression"] or about["License"] or ""
        packages.append(Package("python", about["Name"], about["Version"], licence.split("\n")[0], _size(folder)))
    return sorted(packages, key=lambda one: -one.size)


def _size(folder: pathlib.Path) -> int:
    with (folder / "RECORD").open(newline="") as lines:
        files = {folder.parent / row[0] for row in csv.reader(lines)}
    bytecode = {
        compiled
        for file in files
        if file.suffix == ".py"
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.cpython-*.pyc")
    }
    return sum(path.lstat().st_size for path in files | bytecode if path.exists())


def system_packages(root: pathlib.Path) -> list[Package]:
    """Return what Debian installed, largest first."""
    dpkg = root / "var/lib/dpkg"
    texts = [path.read_text() for path in dpkg.glob("status.d/*") if path.suffix != ".md5sums"]
    if (dpkg / "status").exists():
        texts += (dpkg / "status").read_text().strip().split("\n\n")
    packages = []
    for text in texts:
        about = email.parser.HeaderParser().parsestr(text)
        kibibytes = int(about["Installed-Size"] or 0)
        packages.append(Package("debian", about["Package"], about["Version"], "", kibibytes * 1024))
    return sorted(packages, key=lambda one: -one.size)


def total_bytes(root: pathlib.Path) -> tuple[int, int]:
    """Return the bytes of all files, and of those in the environment; files with two names count once."""
    sizes: dict[tuple[int, int], int] = {}
    inside: dict[tuple[int, int], int] = {}
    for path in root.rglob("*"):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode):
            sizes[about.st_dev, about.st_ino] = about.st_size
            if path.is_relative_to(root / ENVIRONMENT):
                inside[about.st_dev, about.st_ino] = about.st_size
    return sum(sizes.values()), sum(inside.values())


def report(root: pathlib.Path, compressed: list[int], file: pathlib.Path) -> None:
    """Print sizes and packages; the whole list goes into a file."""
    everything, environment = total_bytes(root)
    layers = " + ".join(f"{size / 1e6:.0f}" for size in compressed)
    base = everything - environment
    steps.say(f"  uncompressed {_mb(everything)}: the base {_mb(base)}, /{ENVIRONMENT} {_mb(environment)}")
    steps.say(f"  compressed {_mb(sum(compressed))}: layers of {layers}")
    ours, theirs = python_packages(root), system_packages(root)
    for one in ours[:PRINTED]:
        steps.say(f"    {_mb(one.size):>9}  {one.name} {one.version}")
    steps.say(f"    and {len(ours) - PRINTED} smaller Python packages, {len(theirs)} of Debian; all with sizes: {file}")
    lines = (f"{one.kind}\t{one.name}\t{one.version}\t{one.size}\t{one.licence}\n" for one in [*ours, *theirs])
    file.write_text("kind\tname\tversion\tbytes\tlicence\n" + "".join(lines))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 100e6 else f"{size / 1e6:.0f} MB"
