"""Providers and cores: what is asked for is what runs."""

import pathlib

import pytest

from service import errors
from service.runtime import cores, providers, session
from tests.service.runtime import graphs


def test_cuda_without_cuda_refuses_and_says_what_is_missing() -> None:
    if providers._missing_for_cuda() is None:
        pytest.skip("this machine has CUDA")
    with pytest.raises(errors.ProviderUnavailable, match=r"--device cuda was asked for, but lib.*--device cpu"):
        providers.choose("cuda")


def test_auto_without_cuda_warns_and_gives_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    if providers._missing_for_cuda() is None:
        pytest.skip("this machine has CUDA")
    chosen = providers.choose("auto")
    assert chosen.name == providers.CPU
    assert "no usable CUDA" in chosen.reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_provider_that_onnx_runtime_did_not_take_is_an_error(tmp_path: pathlib.Path) -> None:
    if providers._missing_for_cuda() is None:
        pytest.skip("this machine has CUDA")
    options = session.Options(providers.Provider(providers.CUDA, {}, "pretended"), 1)
    with pytest.raises(errors.ModelLoadError, match="CPUExecutionProvider instead of CUDAExecutionProvider"):
        session.Session("m", graphs.convnet(tmp_path / "m.onnx"), options)


@pytest.mark.parametrize(("text", "wanted"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)])
def test_cores_follow_the_cgroup_quota(tmp_path: pathlib.Path, text: str, wanted: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cores.available(tmp_path) == (wanted or cores.available(tmp_path / "no cgroup"))


def test_cores_follow_version_1_of_cgroups(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cores.available(tmp_path) == 1
