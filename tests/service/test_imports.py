"""Serving stays small: neither torch nor onnx, however far it is imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["service", "service.server", "service.cli", "service.load_cli", "service.tune_cli", "service.client", "fovea"],
)
def test_the_serving_half_imports_neither_torch_nor_onnx(module: str) -> None:
    program = f"import sys, {module}; print({{'torch', 'onnx', 'onnxscript'}} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_client_needs_no_onnxruntime() -> None:
    program = "import sys, service.client; print('onnxruntime' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
