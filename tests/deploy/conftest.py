"""What several deployment tests read: the Dockerfile, and the manifests as kubectl renders them."""

import pathlib
import re
from typing import NamedTuple

import pytest

from tests.deploy import rendering

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Instruction(NamedTuple):
    stage: str  # "" before the first FROM
    keyword: str
    value: str


def parse_dockerfile(text: str) -> list[Instruction]:
    """Enough of the format for our own file: comments, continued lines, named stages; no heredocs."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stage = ""
    instructions = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        keyword, value = line.strip().split(maxsplit=1)
        if keyword == "FROM":
            stage = value.rpartition(" AS ")[2]
        instructions.append(Instruction(stage, keyword, value))
    return instructions


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    return ROOT


@pytest.fixture(scope="session")
def dockerfile() -> list[Instruction]:
    return parse_dockerfile((ROOT / "deploy/docker/Dockerfile").read_text())


@pytest.fixture(scope="session")
def served(dockerfile: list[Instruction]) -> dict[str, list[str]]:
    """Keyword → values of the last stage, the one that becomes the image."""
    last = dockerfile[-1].stage
    values: dict[str, list[str]] = {}
    for instruction in dockerfile:
        if instruction.stage == last:
            values.setdefault(instruction.keyword, []).append(instruction.value)
    return values


@pytest.fixture(scope="session")
def image_environment(served: dict[str, list[str]]) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', " ".join(served["ENV"])))


@pytest.fixture(scope="session", params=rendering.cases(), ids=str)
def rendered(request: pytest.FixtureRequest) -> rendering.Rendered:
    """Every overlay, alone and with components."""
    case: rendering.Case = request.param
    return rendering.render(case)
