"""The CUDA provider, for real. Skipped with the reason where there is none."""

import pathlib

import numpy as np
import pytest

from export import options
from service.models import goldens, manifest
from service.runtime import providers, session
from tests import conftest
from tests.conftest import Exported

MISSING = providers._missing_for_cuda()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=f"NOT RUN on CUDA: {MISSING}")]


@pytest.fixture(scope="module")
def on_cuda(exported: Exported) -> session.Session:
    options = session.Options(providers.choose("cuda"), 1)
    return session.Session("lenet5", exported.repository / "lenet5/1/model.onnx", options)


def test_the_goldens_are_reproduced_within_the_manifest_s_tolerance(
    on_cuda: session.Session, exported: Exported
) -> None:
    described = manifest.read("lenet5", on_cuda.metadata)
    evidence = exported.repository / "lenet5/1/evidence"
    replayed = goldens.replay("lenet5", evidence, described, on_cuda, providers.CUDA)
    assert replayed is not None
    assert replayed.worst <= replayed.tolerance


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_every_digit_gets_pytorch_s_class(on_cuda: session.Session, exported: Exported, batch: int) -> None:
    from export import digits

    images_nhwc = digits.load()[1].images_nhwc[:batch]
    got = on_cuda.run({"image": images_nhwc}, ["logits"])["logits"]
    assert np.array_equal(got.argmax(1), exported.logits(images_nhwc).argmax(1))


def test_the_fp16_variant_reproduces_its_goldens(exported: Exported, tmp_path: pathlib.Path) -> None:
    chosen = options.Options(weights=str(exported.weights_path), precisions=("fp16",))
    (made,) = conftest.export("lenet5", tmp_path, chosen)
    folder = tmp_path / made.place.name / "1"
    loaded = session.Session(made.place.name, folder / "model.onnx", session.Options(providers.choose("cuda"), 1))
    described = manifest.read(made.place.name, loaded.metadata)
    manifest.check_provider(made.place.name, described, providers.CUDA)
    replayed = goldens.replay(made.place.name, folder / "evidence", described, loaded, providers.CUDA)
    assert replayed is not None
    assert replayed.worst <= replayed.tolerance
