"""A client that divides the smallest integer by -1 gets an answer, and the others keep their server."""

import pathlib

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import running
from tests.wire import by_hand

LEAST = {"int32": np.iinfo(np.int32).min, "int64": np.iinfo(np.int64).min}


def test_no_division_ends_the_server(tmp_path: pathlib.Path) -> None:
    for datatype in LEAST:
        for operator in ("Div", "Mod"):
            body = f"({datatype}[N,2] a, {datatype}[N,2] b) => ({datatype}[N,2] y) {{ y = {operator}(a, b) }}"
            by_hand.write(tmp_path / "models", f"{operator}-{datatype}", {"1": body}, "max_batch_size: 0")
            by_hand.write(tmp_path / "models", f"{operator}-{datatype}-unsaid", {"1": body})
    with (
        running(tmp_path / "models", tmp_path / "log", "--threads", "1", "--device", "cpu") as server,
        triton.InferenceServerClient(server.address) as client,
    ):
        for datatype, least in LEAST.items():
            for name in (f"Div-{datatype}", f"Mod-{datatype}", f"Div-{datatype}-unsaid", f"Mod-{datatype}-unsaid"):
                wanted = [least, -3] if name.startswith("Div") else [0, 1]

                def ask(divisors: list[int], model: str = name, kind: str = datatype, most: int = least) -> np.ndarray:
                    numbers = np.array([[most, 7]], kind), np.array([divisors], kind)
                    sent = [by_hand.tensor(tensor, values) for tensor, values in zip("ab", numbers, strict=True)]
                    return client.infer(model, sent).as_numpy("y")

                assert ask([-1, -2]).tolist() == [[wanted[0], wanted[1] if name.startswith("Div") else -1]]
                with pytest.raises(InferenceServerException, match="INTERNAL"):
                    ask([0, 0])
                assert ask([-1, 2]).tolist() == [[wanted[0], 3 if name.startswith("Div") else 1]]
        assert client.is_server_ready()
    assert server.process.returncode == 0
