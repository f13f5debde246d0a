"""`make demo`, whole: it fails by itself where a figure is not as promised."""

import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_the_demo_shows_what_it_promises() -> None:
    result = subprocess.run(
        [sys.executable, "demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"top-1 agreement 100.00%", result.stdout)
    assert "fovea classify --model lenet5" in result.stdout
    with Image.open(ROOT / "build/demo/contact-sheet.png") as sheet:
        assert sheet.width > 1000
