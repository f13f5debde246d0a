"""One check for each method of the stock clients about the server, its models, its memory, and the client itself."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import auth
from tritonclient.grpc.aio import auth as auth_aio
from tritonclient.utils import InferenceServerException, shared_memory

from tests.wire import by_hand
from tests.wire.stock import ANSWER, WITHIN_S, A, B, Stock, assert_answers, inputs, refused


def is_server_live(stock: Stock) -> None:
    assert stock.is_server_live() is True
    assert stock.is_server_live(headers={"x-caller": "me"}, client_timeout=WITHIN_S) is True


def is_server_ready(stock: Stock) -> None:
    assert stock.is_server_ready(headers={"x-caller": "me"}, client_timeout=WITHIN_S) is True


def is_model_ready(stock: Stock) -> None:
    assert [stock.is_model_ready("simple", version) for version in ("", "3", "1")] == [True, True, False]
    assert stock.is_model_ready("nobody") is False


def get_server_metadata(stock: Stock) -> None:
    told = stock.get_server_metadata(as_json=True)
    assert told["name"] == "fovea"
    assert {"statistics", "classification", "system_shared_memory", "model_repository"} <= set(told["extensions"])
    assert stock.get_server_metadata().version == told["version"]


def get_model_metadata(stock: Stock) -> None:
    told = stock.get_model_metadata("simple", as_json=True)
    assert (told["name"], told["versions"], told["platform"]) == ("simple", ["3"], "onnxruntime_onnx")
    assert told["inputs"][1] == {"name": "INPUT1", "datatype": "INT32", "shape": ["-1", "16"]}
    assert [list(output.shape) for output in stock.get_model_metadata("simple", "3").outputs] == [[-1, 16]] * 2
    refused("NOT_FOUND", stock.get_model_metadata, "simple", "2")


def get_model_config(stock: Stock) -> None:
    told = stock.get_model_config("simple", as_json=True)["config"]
    assert (told["max_batch_size"], told["dynamic_batching"]["priority_levels"]) == (8, "3")
    assert told["output"][0]["label_filename"] == "labels.txt"
    assert list(stock.get_model_config("simple", "3").config.input[0].dims) == [16]
    refused("NOT_FOUND", stock.get_model_config, "nobody")


def get_inference_statistics(stock: Stock) -> None:
    def counts() -> tuple[int, int, int]:
        (told,) = stock.get_inference_statistics("simple", "3").model_stats
        return told.inference_count, told.execution_count, told.inference_stats.success.count

    before = counts()
    for _ in range(3):
        stock.infer("simple", inputs())
    assert np.subtract(counts(), before).tolist() == [3, 3, 3]
    told = stock.get_inference_statistics(as_json=True)["model_stats"]
    assert [(one["name"], one["version"]) for one in told] == [("lasting", "1"), ("simple", "3")]
    refused("NOT_FOUND", stock.get_inference_statistics, "nobody")


def get_model_repository_index(stock: Stock) -> None:
    index = stock.get_model_repository_index(as_json=True)["models"]
    assert {(one["name"], one["version"], one["state"]) for one in index} >= {
        ("lasting", "1", "READY"),
        ("simple", "3", "READY"),
    }


def load_model(stock: Stock) -> None:
    """As it is on disk; with another config; with files instead of those on disk."""
    config = {"max_batch_size": 2, "version_policy": {"all": {}}}
    stock.load_model("simple", config=json.dumps(config))
    assert list(stock.get_model_metadata("simple").versions) == ["1", "3"]
    assert stock.get_model_config("simple").config.max_batch_size == 2
    stock.load_model("simple")
    assert list(stock.get_model_metadata("simple").versions) == ["3"]
    graph = by_hand.graph("(float[2] x) => (float[2] y) { y = Neg(x) }").SerializeToString()
    stock.load_model("handed", config="{}", files={"file:5/model.onnx": graph})
    result = stock.infer("handed", [by_hand.tensor("x", np.ones(2, np.float32))], model_version="5")
    assert result.as_numpy("y").tolist() == [-1, -1]
    stock.unload_model("handed")
    refused("NOT_FOUND", stock.load_model, "nobody", headers={"x-caller": "me"}, client_timeout=WITHIN_S)


def unload_model(stock: Stock) -> None:
    stock.unload_model("simple", unload_dependents=True)
    assert stock.is_model_ready("simple") is False
    refused("NOT_FOUND", stock.infer, "simple", inputs())
    refused("NOT_FOUND", stock.unload_model, "simple")
    stock.load_model("simple")
    assert_answers(stock.infer("simple", inputs()))


def get_trace_settings(stock: Stock) -> None:
    for told in (stock.get_trace_settings(), stock.get_trace_settings("simple")):
        assert told.settings["trace_level"].value
    assert "trace_level" in stock.get_trace_settings(as_json=True)["settings"]


def update_trace_settings(stock: Stock) -> None:
    """Off can be asked for; so can, by None, what it was at the start."""
    for settings in ({"trace_level": ["OFF"]}, {"trace_level": None}):
        told = stock.update_trace_settings(settings=settings, as_json=True)
        assert told["settings"]["trace_level"]["value"] == ["OFF"]
    refused("INVALID_ARGUMENT", stock.update_trace_settings, settings={"trace_lvl": ["OFF"]})


def get_log_settings(stock: Stock) -> None:
    assert stock.get_log_settings().settings["log_error"].bool_param is True
    assert stock.get_log_settings(as_json=True)["settings"]["log_info"]["bool_param"] is True


def update_log_settings(stock: Stock) -> None:
    assert stock.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
    told = stock.update_log_settings({"log_verbose_level": 0, "log_info": True}, as_json=True)["settings"]
    assert told["log_info"]["bool_param"] is True
    refused("INVALID_ARGUMENT", stock.update_log_settings, {"log_nothing": True})


@contextlib.contextmanager
def region(name: str, size: int) -> Iterator[tuple[Any, str]]:
    key = f"/fovea-stock-{name}"
    made = shared_memory.create_shared_memory_region(name, key, size)
    try:
        yield made, key
    finally:
        shared_memory.destroy_shared_memory_region(made)


def register_system_shared_memory(stock: Stock) -> None:
    """Both inputs from one region, one output to another; registered, used, forgotten."""
    size = A.nbytes
    with region("in", 2 * size) as (given, given_key), region("out", 2 * size) as (taken, taken_key):
        shared_memory.set_shared_memory_region(given, [A, B])
        stock.register_system_shared_memory("in", given_key, 2 * size)
        stock.register_system_shared_memory("out", taken_key, size, offset=size)
        asked = [triton.InferInput(f"INPUT{number}", [1, 16], "INT32") for number in range(2)]
        for number, one in enumerate(asked):
            one.set_shared_memory("in", size, offset=number * size)
        wanted = [triton.InferRequestedOutput(name) for name in ANSWER]
        wanted[0].set_shared_memory("out", size)
        result = stock.infer("simple", asked, outputs=wanted)
        assert (result.as_numpy("OUTPUT1") == A - B).all()
        assert result.get_output("OUTPUT0").parameters["shared_memory_region"].string_param == "out"
        found = shared_memory.get_contents_as_numpy(taken, np.int32, [1, 16], offset=size)
        assert (found == A + B).all()
        mixed = [asked[0], by_hand.tensor("INPUT1", B)]
        assert_answers(stock.infer("simple", mixed))
        wanted[0].unset_shared_memory()
        assert_answers(stock.infer("simple", asked, outputs=wanted))
        del found
        stock.unregister_system_shared_memory()
    refused("INVALID_ARGUMENT", stock.register_system_shared_memory, "in", "/fovea-nowhere", 1)


def get_system_shared_memory_status(stock: Stock) -> None:
    with region("status", 64) as (_, key):
        stock.register_system_shared_memory("status", key, 32, offset=16)
        told = stock.get_system_shared_memory_status("status").regions["status"]
        assert (told.name, told.key, told.offset, told.byte_size) == ("status", key, 16, 32)
        assert list(stock.get_system_shared_memory_status(as_json=True)["regions"]) == ["status"]
        stock.unregister_system_shared_memory("status")
    refused("INVALID_ARGUMENT", stock.get_system_shared_memory_status, "status")


def unregister_system_shared_memory(stock: Stock) -> None:
    with region("one", 64) as (_, key):
        stock.register_system_shared_memory("one", key, 64)
        stock.register_system_shared_memory("two", key, 64)
        stock.unregister_system_shared_memory("one")
        assert list(stock.get_system_shared_memory_status().regions) == ["two"]
        stock.unregister_system_shared_memory()
        stock.unregister_system_shared_memory("one")
        assert not stock.get_system_shared_memory_status().regions


def get_cuda_shared_memory_status(stock: Stock) -> None:
    assert not stock.get_cuda_shared_memory_status().regions
    assert stock.get_cuda_shared_memory_status(as_json=True) == {}


def register_cuda_shared_memory(stock: Stock) -> None:
    """Does not apply yet: the server says so."""
    assert "takes no CUDA shared memory" in refused(
        "UNIMPLEMENTED", stock.register_cuda_shared_memory, "gpu", b"aGFuZGxl", 0, 64
    )


def unregister_cuda_shared_memory(stock: Stock) -> None:
    """Nothing to do, and said to be done: perf_analyzer begins with it."""
    stock.unregister_cuda_shared_memory()
    stock.unregister_cuda_shared_memory("gpu")


def close(stock: Stock) -> None:
    assert stock.is_server_live()
    stock.close()
    with pytest.raises(Exception, match=r"closed"):
        stock.is_server_live()


def register_plugin(stock: Stock) -> None:
    basic = (auth_aio if stock.is_aio else auth).BasicAuth
    stock.register_plugin(basic("somebody", "secret"))
    assert_answers(stock.infer("simple", inputs()))
    with pytest.raises(InferenceServerException, match="already registered"):
        stock.register_plugin(basic("somebody", "else"))


def plugin(stock: Stock) -> None:
    assert stock.plugin() is None
    seen: list[triton.Request] = []

    class Watch(triton.InferenceServerClientPlugin):
        def __call__(self, request: triton.Request) -> None:
            request.headers["x-watched"] = "yes"
            seen.append(request)

    watch = Watch()
    stock.register_plugin(watch)
    assert stock.plugin() is watch
    assert stock.is_server_live()
    assert len(seen) == 1


def unregister_plugin(stock: Stock) -> None:
    with pytest.raises(InferenceServerException, match="No plugin"):
        stock.unregister_plugin()
    stock.register_plugin(auth.BasicAuth("a", "b"))
    stock.unregister_plugin()
    assert stock.plugin() is None
    assert_answers(stock.infer("simple", inputs()))


CHECKS = (
    is_server_live, is_server_ready, is_model_ready, get_server_metadata, get_model_metadata, get_model_config,
    get_inference_statistics, get_model_repository_index, load_model, unload_model, get_trace_settings,
    update_trace_settings, get_log_settings, update_log_settings, register_system_shared_memory,
    get_system_shared_memory_status, unregister_system_shared_memory, get_cuda_shared_memory_status,
    register_cuda_shared_memory, unregister_cuda_shared_memory, close, register_plugin, plugin, unregister_plugin,
)  # fmt: skip
