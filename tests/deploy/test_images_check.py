"""What `make images-check` relies on: trimming leaves a whole environment, and the check sees what it has to see."""

import csv
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from deploy.docker import trim
from deploy.docker.check import container, contents, steps


def site_packages() -> pathlib.Path:
    spec = importlib.util.find_spec("PIL")
    assert spec is not None
    assert spec.origin is not None
    return pathlib.Path(spec.origin).parents[1]


# --- trimming ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [pattern for pattern in trim.UNUSED if not pattern.startswith("**")])
def test_what_is_trimmed_is_in_the_pinned_wheels(pattern: str) -> None:
    """A new version of a library may rename it: then this fails before an image does not build."""
    assert list(site_packages().glob(pattern))


@pytest.fixture
def site(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with Pillow as pip installs it."""
    folder = tmp_path / "lib/python3.11/site-packages"
    for path in (*site_packages().glob("PIL"), *site_packages().glob("pillow[-.]*")):
        shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_libraries_go_with_what_needs_them(site: pathlib.Path) -> None:
    assert trim.remove(site, ["PIL/_avif.*.so"]) == []
    trim.remove_unlinked(site)
    left = {path.name.partition("-")[0] for path in site.glob("*.libs/*")}
    assert "libavif" not in left
    assert {"libjpeg", "libwebp", "libtiff", "libxcb", "libXau"} <= left  # the last ones through others
    assert trim.missing_links(site) == []


def test_a_missing_library_is_named(site: pathlib.Path) -> None:
    (jpeg,) = site.glob("pillow.libs/libjpeg-*")
    jpeg.unlink()
    assert any(line.startswith("PIL/_imaging.") and f"needs {jpeg.name}" in line for line in trim.missing_links(site))


def test_records_list_what_is_there(site: pathlib.Path) -> None:
    trim.remove(site, ["PIL/_avif.*.so", "**/*.py[ix]"])
    (site / "PIL/__init__.pyi").unlink(missing_ok=True)
    trim.correct_records(site)
    (record,) = site.glob("pillow-*.dist-info/RECORD")
    with record.open(newline="") as lines:
        listed = [row[0] for row in csv.reader(lines)]
    assert "PIL/Image.py" in listed
    assert [name for name in listed if not (site / name).exists()] == []


def test_a_pattern_without_a_match_is_an_error(site: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"numpy/f2py.*correct UNUSED in trim\.py"):
        trim.trim(site)


# --- what the check sees ------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    """The smallest tree without objections."""
    site = tmp_path / "opt/fovea/lib/python3.11/site-packages"
    _install(site, "numpy", "2.4.6")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: libc6\nVersion: 2.36\nInstalled-Size: 100\n\nPackage: bash\nVersion: 5.2\nInstalled-Size: 7\n"
    )
    return tmp_path


def _install(site: pathlib.Path, name: str, version: str) -> None:
    about = site / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Name: {name}\nVersion: {version}\nLicense-Expression: MIT\n\nText.\n")
    (about / "RECORD").write_text(f"{name}/__init__.py,sha256=x,10\n{name}/gone.py,,\n")
    (site / name / "__pycache__").mkdir(parents=True)
    (site / name / "__init__.py").write_text("#" * 10)
    (site / name / "__pycache__/__init__.cpython-311.pyc").write_bytes(b"c" * 5)


def test_a_clean_image_passes(image: pathlib.Path) -> None:
    contents.check(image)


def _torch(image: pathlib.Path) -> None:
    _install(image / "opt/fovea/lib/python3.11/site-packages", "torch", "2.13.0")


def _compiler(image: pathlib.Path) -> None:
    (image / "usr/bin/x86_64-linux-gnu-gcc-12").touch()


def _cache(image: pathlib.Path) -> None:
    (image / "root/.cache/pip").mkdir(parents=True)


def _unreadable(image: pathlib.Path) -> None:
    (image / "opt/fovea/lib").chmod(0o750)


def _writable(image: pathlib.Path) -> None:
    (image / "opt/fovea/lib/python3.11").chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "objection"),
    [
        (_torch, "package torch"),
        (_compiler, "program /usr/bin/x86_64-linux-gnu-gcc-12"),
        (_cache, "cache /root/.cache"),
        (_unreadable, "rights of /opt/fovea/lib: drwxr-x---"),
        (_writable, "rights of /opt/fovea/lib/python3.11: drwxrwxrwx"),
    ],
)
def test_what_has_no_business_there_is_named(image: pathlib.Path, spoil: Any, objection: str) -> None:
    spoil(image)
    with pytest.raises(steps.CheckFailed, match=objection):
        contents.check(image)


def test_packages_are_listed_with_their_sizes(image: pathlib.Path) -> None:
    (one,) = contents.python_packages(image)
    assert (one.name, one.version, one.licence, one.size) == ("numpy", "2.4.6", "MIT", 15)
    assert [(one.name, one.size) for one in contents.system_packages(image)] == [("libc6", 102400), ("bash", 7168)]


LABELS = {
    f"org.opencontainers.image.{name}": "1.0"
    for name in ("title", "description", "licenses", "version", "revision", "base.name")
}


def test_labels_are_needed() -> None:
    contents.check_labels(LABELS, "1.0")
    with pytest.raises(steps.CheckFailed, match="without a value: revision"):
        contents.check_labels(LABELS | {"org.opencontainers.image.revision": "unknown"}, "1.0")
    with pytest.raises(steps.CheckFailed, match=r"version is 1\.0; pyproject\.toml says 2\.0"):
        contents.check_labels(LABELS, "2.0")


# --- the container ------------------------------------------------------------------------------------------

WRITTEN: dict[str, Any] = {
    "process": {"capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]}, "user": {"uid": 0, "gid": 0}},
    "mounts": [{"destination": "/proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]},
}
IMAGE = {"Entrypoint": ["fovea"], "Cmd": ["serve"], "Env": ["A=1"], "WorkingDir": "", "User": "65532:65532"}


def test_container_has_no_rights(tmp_path: pathlib.Path) -> None:
    got = container.specification(WRITTEN, tmp_path, IMAGE, {"/models": tmp_path}, (12345, 23456), {"B": "2"})
    process = got["process"]
    assert got["root"] == {"path": str(tmp_path), "readonly": True}
    assert process["user"] == {"uid": 12345, "gid": 23456}
    assert process["capabilities"] == {"bounding": [], "effective": []}
    assert process["noNewPrivileges"] is True
    assert process["args"] == ["fovea", "serve"]
    assert process["env"] == ["A=1", "B=2"]
    (models,) = [mount for mount in got["mounts"] if mount["destination"] == "/models"]
    assert "ro" in models["options"]
    json.dumps(got)


def test_a_failed_program_is_quoted(tmp_path: pathlib.Path) -> None:
    with pytest.raises(steps.CheckFailed, match=r"ended with 3; the end of .*log:\nreason"):
        steps.logged(["sh", "-c", "echo reason; exit 3"], tmp_path / "log", limit_s=30)


def test_a_program_that_hangs_is_ended(tmp_path: pathlib.Path) -> None:
    with pytest.raises(steps.CheckFailed, match=r"took more than 0\.2 s"):
        steps.output(["sleep", "60"], limit_s=0.2)


def test_check_explains_itself(root: pathlib.Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "deploy.docker.check", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "--devices" in shown.stdout
