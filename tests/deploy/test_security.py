"""deploy/SECURITY.md claims nothing that is not there."""

import pathlib
import re

from service import settings

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "deploy/SECURITY.md").read_text()
CLIENT = {"--model", "--images-per-s", "--address", "--tls-ca"}


def test_every_test_that_is_named_exists() -> None:
    path, named = "", 0
    for found_path, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", TEXT):
        path = found_path or path
        content = (ROOT / path).read_text()
        if test:
            named += 1
            assert re.search(rf"^(async )?def {test}\(", content, re.MULTILINE), f"{path}::{test}"
    assert named > 25


def test_every_flag_that_is_named_is_a_setting() -> None:
    flags = set(re.findall(r"--[a-z][a-z-]+", TEXT)) - CLIENT
    assert flags <= {settings.flag_name(name) for name in settings.Settings.model_fields}
