"""The rendered containers, run as they are (command, environment, ports, mounts), and what their probes say when."""

import pathlib
import signal
import time

import pytest

from tests.conftest import Exported
from tests.deploy import pod, rendering
from tests.deploy.rendering import Case

LIVES_S = 60.0
"""Far more than any step here takes."""


@pytest.fixture(scope="module")
def image(image_environment: dict[str, str]) -> pod.Image:
    """The CPU image."""
    return pod.Image(["fovea"], image_environment | {"FOVEA_DEVICE": "cpu"})


@pytest.fixture(scope="module")
def models(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return pod.readable(exported.repository, tmp_path_factory.mktemp("volume") / "models")


@pytest.fixture
def picture(pngs: list[bytes], tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "digit.png"
    path.write_bytes(pngs[0])
    return path


def until(served: pod.Pod, probe: str, *, is_well: bool) -> list[str]:
    """Ask until the answer is that; all answers."""
    answers = [served.probe(probe)]
    give_up_s = time.monotonic() + LIVES_S
    while (answers[-1] == "ok") != is_well:
        assert time.monotonic() < give_up_s, (probe, answers[-1], served.log())
        assert served.process.poll() is None, served.log()
        time.sleep(0.05)  # between questions to another process; bounded above
        answers.append(served.probe(probe))
    return answers


def live_and_die(served: pod.Pod, picture: pathlib.Path, port: int, *, root: str = "") -> None:
    """A Pod's life as its probes see it.

    1. Startup fails until every model is warm, then passes.
    2. Ready, alive, and calls are answered.
    3. SIGTERM: not ready, at once; but alive, and for the drain delay calls are answered.
    4. The end is orderly, and within the grace period.
    """
    assert len(until(served, "startupProbe", is_well=True)) > 1  # case 1
    assert "ready: gRPC on" in served.log()
    assert (served.probe("readinessProbe"), served.probe("livenessProbe")) == ("ok", "ok")  # case 2
    label = served.classify(picture, port, root)
    assert label in "0123456789"
    served.process.send_signal(signal.SIGTERM)  # case 3
    until(served, "readinessProbe", is_well=False)
    assert served.probe("livenessProbe") == "ok"
    assert served.classify(picture, port, root) == label
    assert served.process.poll() is None
    assert served.process.wait(LIVES_S) == 0  # case 4
    assert "2 requests answered with OK, 0 with an error" in served.log()


def test_the_deployment_lives_and_dies_as_its_probes_expect(
    image: pod.Image, models: pathlib.Path, picture: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    rendered = rendering.render(Case("cpu"))
    volumes = {"/models": models}
    with pod.running(rendered.container, rendered.environment, image, volumes, tmp_path) as served:
        live_and_die(served, picture, rendered.ports["grpc"])
        graceful_s = rendered.pod["terminationGracePeriodSeconds"]
        assert "cut off" not in served.log()
        assert graceful_s > 0


def test_a_pod_is_not_root_and_can_write_nowhere(
    image: pod.Image, models: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """That the test's Pod is as strict as the manifest."""
    rendered = rendering.render(Case("cpu"))
    tries = "id -u; for d in / /tmp /models; do touch $d/x 2>/dev/null && echo wrote $d; done; env | grep -c FOVEA_"
    container = rendered.container | {"command": ["sh", "-c", f"({tries}) >&2; exec sleep 60"], "args": []}
    with pod.running(container, rendered.environment, image, {"/models": models}, tmp_path) as served:
        give_up_s = time.monotonic() + LIVES_S
        while served.log().count("\n") < 2 and time.monotonic() < give_up_s:
            time.sleep(0.02)  # between looks at another process's log; bounded above
        fovea = [name for name in {*rendered.environment, *image.environment} if name.startswith("FOVEA_")]
        assert served.log().split() == [str(pod.USER), str(len(fovea))]
