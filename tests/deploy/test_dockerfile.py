"""deploy/docker: what can be said about the images without building them. `make images-check` builds them."""

import http.server
import json
import pathlib
import re
import subprocess
import sys
import threading
import tomllib
from types import ModuleType
from typing import Any

import pytest

DEVICES = ["cpu", "cuda"]


@pytest.fixture(scope="module")
def dependencies() -> ModuleType:
    from deploy.docker import dependencies

    return dependencies


def copied_sources(dockerfile: list[Any]) -> list[str]:
    copies = [instruction.value.split() for instruction in dockerfile if instruction.keyword == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


# --- the image ----------------------------------------------------------------------------------------------


def test_bases_are_arguments_and_one_by_default(dockerfile: list[Any]) -> None:
    """The environment links to the base's Python, so the last stage needs the same one, and is given it."""
    sources = {i.stage: i.value.split(" AS ")[0] for i in dockerfile if i.keyword == "FROM"}
    assert sources == {"build": "${BASE_IMAGE}", "serve": "${SERVE_IMAGE}"}
    bases = dict(i.value.split("=") for i in dockerfile if (i.stage, i.keyword) == ("", "ARG") and "IMAGE" in i.value)
    assert bases["SERVE_IMAGE"] == "${BASE_IMAGE}"
    _, _, tag = bases["BASE_IMAGE"].rpartition(":")
    assert tag != bases["BASE_IMAGE"]
    assert "latest" not in tag


def test_user_is_numeric_and_not_root(served: dict[str, list[str]]) -> None:
    user, _, group = served["USER"][-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_entry_point_is_the_installed_command(root: pathlib.Path, served: dict[str, list[str]]) -> None:
    """Exec form parses as JSON; a shell in between would keep SIGTERM to itself."""
    (command,) = json.loads(served["ENTRYPOINT"][-1])
    assert command in tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(served["CMD"][-1]) == ["serve"]


def test_last_stage_installs_nothing(served: dict[str, list[str]]) -> None:
    assert "RUN" not in served
    assert served["COPY"] == ["--from=build /opt/fovea /opt/fovea"]


def test_a_new_revision_leaves_the_large_layer_alone(dockerfile: list[Any]) -> None:
    """What stands above a changed argument is built again; in both stages the files come first."""
    last = [i.keyword for i in dockerfile if i.stage == "serve"]
    revision = next(n for n, i in enumerate(i for i in dockerfile if i.stage == "serve") if "REVISION" in i.value)
    assert last.index("COPY") < revision


@pytest.fixture(scope="module")
def health_check(served: dict[str, list[str]]) -> list[str]:
    program, *arguments = json.loads(served["HEALTHCHECK"][-1].partition("CMD")[2])
    assert program == "python3"
    return [sys.executable, *arguments]


def test_health_check_asks_the_metrics_port(
    health_check: list[str], served: dict[str, list[str]], image_environment: dict[str, str]
) -> None:
    assert re.findall(r"os\.environ\['(\w+)'\]", health_check[-1]) == ["FOVEA_METRICS_PORT"]
    assert image_environment["FOVEA_METRICS_PORT"] in served["EXPOSE"][-1].split()
    assert image_environment["FOVEA_GRPC_PORT"] in served["EXPOSE"][-1].split()


@pytest.mark.parametrize(("answer", "code"), [(200, 0), (503, 1), (404, 1)])
def test_health_check_is_the_answer_of_readiness(health_check: list[str], answer: int, code: int) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"FOVEA_METRICS_PORT": str(server.server_address[1])}
        assert subprocess.run(health_check, env=environment, timeout=30, check=False).returncode == code
        server.shutdown()
    assert asked == ["/v2/health/ready"]


def test_health_check_fails_where_nobody_listens(health_check: list[str]) -> None:
    environment = {"FOVEA_METRICS_PORT": "9"}
    ended = subprocess.run(health_check, env=environment, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 1


def test_runtime_sends_no_telemetry(image_environment: dict[str, str]) -> None:
    assert image_environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_labels_are_the_standard_ones(served: dict[str, list[str]]) -> None:
    labels = re.findall(r'org\.opencontainers\.image\.([\w.]+)="', " ".join(served["LABEL"]))
    assert {"title", "description", "licenses", "version", "revision"} <= set(labels)


# --- what goes in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_device_chooses_exactly_one_runtime(root: pathlib.Path, dependencies: ModuleType, device: str) -> None:
    pyproject = (root / "pyproject.toml").read_text()
    lines = dependencies.image_dependencies(device, pyproject, "onnxruntime-gpu==1.31.1\ntorch==2.13.0\n")
    runtimes = [line for line in lines if line.startswith("onnxruntime")]
    assert runtimes == [f"{dependencies.DISTRIBUTION[device]}==1.31.1"]
    project = tomllib.loads(pyproject)["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["tracing"]]
    assert lines[1:] == [line for line in declared if not line.startswith("onnxruntime")]
    assert not [line for line in lines if re.match(r"torch|onnx\b(?!runtime)", line)]


def test_runtime_without_a_pin_keeps_its_range(dependencies: ModuleType) -> None:
    pyproject = '[project]\ndependencies = ["numpy", "onnxruntime-gpu>=1.31,<2; sys_platform == \'linux\'"]'
    assert dependencies.image_dependencies("cpu", pyproject, "") == ["onnxruntime>=1.31,<2", "numpy"]


def test_unknown_device_is_refused(dependencies: ModuleType) -> None:
    with pytest.raises(ValueError, match="'rocm'; expected one of: cpu, cuda"):
        dependencies.image_dependencies("rocm", "", "")


def test_devices_are_those_of_the_dockerfile(
    dependencies: ModuleType, dockerfile: list[Any], image_environment: dict[str, str]
) -> None:
    assert sorted(dependencies.DISTRIBUTION) == DEVICES
    (default,) = [
        i.value.partition("=")[2] for i in dockerfile if (i.stage, i.keyword) == ("", "ARG") and "DEVICE" in i.value
    ]
    assert default in DEVICES
    assert image_environment["FOVEA_DEVICE"] == "${DEVICE}"
    # An ARG before the first FROM is empty in a stage that does not repeat it.
    for stage in {i.stage for i in dockerfile if "${DEVICE}" in i.value}:
        assert (stage, "ARG", "DEVICE") in dockerfile


def test_cuda_constraints_pin_the_majors_of_the_wheel(root: pathlib.Path) -> None:
    text = (root / "deploy/docker/constraints-cuda.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert pins["nvidia-cuda-runtime"].startswith("13.")
    assert pins["nvidia-cudnn-cu13"].startswith("9.")


def test_build_stage_has_the_build_backend(root: pathlib.Path, dockerfile: list[Any]) -> None:
    """Built without isolation, so what pyproject.toml asks for has to be there; venv's own setuptools is too old."""
    (required,) = tomllib.loads((root / "pyproject.toml").read_text())["build-system"]["requires"]
    assert [i for i in dockerfile if i.keyword == "RUN" and f"'{required}'" in i.value]


# --- the build context ------------------------------------------------------------------------------------


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Docker's rule: the last pattern that matches the path or a folder above it decides."""
    ignored = False
    for pattern in patterns:
        if re.fullmatch(_as_regex(pattern.removeprefix("!")) + r"(/.*)?", path):
            ignored = not pattern.startswith("!")
    return ignored


def _as_regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")


@pytest.fixture(scope="module")
def ignore_patterns(root: pathlib.Path) -> list[str]:
    lines = (root / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "path",
    [
        ".venv/bin/python",
        ".git/config",
        "models/lenet5/1/model.onnx",
        "build/lib",
        "tests/deploy",
        "service/__pycache__/a.pyc",
    ],
)
def test_context_leaves_out(ignore_patterns: list[str], path: str) -> None:
    assert is_ignored(path, ignore_patterns)


def test_copied_sources_exist_and_travel(root: pathlib.Path, dockerfile: list[Any], ignore_patterns: list[str]) -> None:
    sources = copied_sources(dockerfile)
    assert sources
    assert [source for source in sources if not (root / source).exists()] == []
    assert [source for source in sources if is_ignored(source.rstrip("/"), ignore_patterns)] == []


def test_every_distributed_module_is_copied(root: pathlib.Path, dockerfile: list[Any]) -> None:
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {pattern.rstrip("*") + "/" for pattern in setuptools["packages"]["find"]["include"]}
    modules = {f"{name}.py" for name in setuptools["py-modules"]}
    assert packages | modules <= set(copied_sources(dockerfile))
