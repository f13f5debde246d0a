"""`python -m tests.bench.conformance`: the onnx package's own test models, served without a config over gRPC.

Path: onnx.backend.test → one `fovea serve`, which loads them by RepositoryModelLoad → table.

Every answer is compared with the recorded one, within the tolerances of the package's own runner. What is not
right is tried on ONNX Runtime directly, to tell whose fault it is. Takes some minutes; `--kind node` for one
kind, `--markdown` for BENCHMARKS.md.
"""

import argparse
import collections
import contextlib
import dataclasses
import enum
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx.backend.test import runner
from tritonclient.utils import InferenceServerException

from tests import conftest
from tests.bench import onnx_cases, tables

_FLAGS = ("--model-control-mode", "explicit", "--threads", "1", "--device", "cpu")
_BFLOAT16_TOLERANCE = 2**-6
"""Two units in the last place, as in onnx's runner."""
_WIRE = {
    "BOOL": "BOOL", "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64", "INT8": "INT8",
    "INT16": "INT16", "INT32": "INT32", "INT64": "INT64", "FLOAT16": "FP16", "FLOAT": "FP32", "DOUBLE": "FP64",
    "STRING": "BYTES", "BFLOAT16": "BF16",
}  # fmt: skip


class Verdict(enum.Enum):
    """What came of a test model, in the order of the table."""

    RIGHT = "served and right"
    AS_ONNX_RUNTIME = "served, the same bits as ONNX Runtime, which is not as recorded"
    REFUSED = "refused with a reason"
    NOT_BY_ONNX_RUNTIME = "ONNX Runtime itself cannot run it"
    WRONG = "wrong"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a case; `rows_max` is the largest batch that the server makes of its requests, 0: none."""

    case: onnx_cases.Case
    verdict: Verdict
    reason: str = ""
    rows_max: int = 0


@contextlib.contextmanager
def serving(tested: Iterable[onnx_cases.Case]) -> Iterator[tuple[triton.InferenceServerClient, conftest.RunningServer]]:
    """A real server on a repository of these models without a config, none of them loaded yet."""
    with tempfile.TemporaryDirectory() as folder:
        repository = pathlib.Path(folder) / "models"
        for case in tested:
            version = repository / case.name / "1"
            version.mkdir(parents=True)
            onnx.save(case.model, version / "model.onnx")
        with conftest.running(repository, pathlib.Path(folder) / "log", *_FLAGS) as server:
            client = triton.InferenceServerClient(server.address)
            yield client, server
            client.close()


def judge(client: triton.InferenceServerClient, case: onnx_cases.Case) -> Result:
    """Load a case's model, ask it what was recorded, compare, and unload it."""
    try:
        client.load_model(case.name)
    except InferenceServerException as error:
        reason = error.message() or ""
        by_itself = _by_onnx_runtime(dataclasses.replace(case, runs=()))
        if isinstance(by_itself, str):
            return Result(case, Verdict.NOT_BY_ONNX_RUNTIME, by_itself)
        return Result(case, Verdict.REFUSED, reason)
    try:
        rows_max = client.get_model_config(case.name).config.max_batch_size
        served = [_ask(client, case, inputs) for inputs, _ in case.runs]
    except InferenceServerException as error:
        by_itself = _by_onnx_runtime(case)
        verdict = Verdict.NOT_BY_ONNX_RUNTIME if isinstance(by_itself, str) else Verdict.WRONG
        return Result(case, verdict, by_itself if isinstance(by_itself, str) else str(error))
    finally:
        client.unload_model(case.name)
    return dataclasses.replace(_compared(case, served), rows_max=rows_max)


def _ask(client: triton.InferenceServerClient, case: onnx_cases.Case, inputs: onnx_cases.Values) -> onnx_cases.Values:
    tensors = []
    for value in case.model.graph.input:
        array = inputs.get(value.name)
        if array is None:
            continue
        datatype = _WIRE[onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)]
        tensor = triton.InferInput(value.name, list(array.shape), datatype)
        plain = array.astype(np.object_) if datatype == "BYTES" else array
        tensor.set_data_from_numpy(plain)
        tensors.append(tensor)
    result = client.infer(case.name, tensors)
    return {value.name: _text(result.as_numpy(value.name)) for value in case.model.graph.output}


def _text(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != np.object_:
        return array
    made = np.empty(array.shape, np.object_)
    made.ravel()[:] = [element.decode() for element in array.ravel()]
    return made


def _compared(case: onnx_cases.Case, served: Sequence[onnx_cases.Values]) -> Result:
    differing = _difference(case, served)
    if not differing:
        return Result(case, Verdict.RIGHT)
    by_itself = _by_onnx_runtime(case)
    if isinstance(by_itself, str):
        return Result(case, Verdict.WRONG, f"{differing}; ONNX Runtime: {by_itself}")
    is_same = all(
        _widened(theirs[name]).tobytes() == ours[name].tobytes()
        for theirs, ours in zip(by_itself, served, strict=True)
        for name in theirs
    )
    return Result(case, Verdict.AS_ONNX_RUNTIME if is_same else Verdict.WRONG, differing)


def _difference(case: onnx_cases.Case, answers: Sequence[onnx_cases.Values]) -> str:
    """How the answers differ from the recorded ones, in one line; "" if they do not."""
    for (_, recorded), got in zip(case.runs, answers, strict=True):
        for name, wanted in recorded.items():
            is_bf16 = wanted.dtype.name == "bfloat16"
            rtol = max(case.rtol, _BFLOAT16_TOLERANCE) if is_bf16 else case.rtol
            wanted_plain = wanted.astype(np.object_) if wanted.dtype.kind in "US" else _widened(wanted)
            try:
                runner.Runner.assert_similar_outputs([wanted_plain], [_widened(got[name])], rtol, case.atol)
            except AssertionError as error:
                said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
                return f"output {name!r}: {said[:160]}"
    return ""


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _by_onnx_runtime(case: onnx_cases.Case) -> list[onnx_cases.Values] | str:
    """ONNX Runtime's own answers, without a server; what it says, if it has none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in case.model.graph.output]
        answers = []
        for inputs, _ in case.runs:
            fed = {name: _ortvalue(array) for name, array in inputs.items()}
            values = session.run(names, fed) if not _has_bf16_outputs(case) else _by_value(session, names, fed)
            answers.append(dict(zip(names, values, strict=True)))
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        return str(error).splitlines()[0]
    return answers


def _ortvalue(array: Any) -> Any:
    if isinstance(array, np.ndarray) and array.dtype.name == "bfloat16":
        bits = array.view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
    return array.astype(np.object_) if isinstance(array, np.ndarray) and array.dtype.kind in "US" else array


def _has_bf16_outputs(case: onnx_cases.Case) -> bool:
    return any(value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for value in case.model.graph.output)


def _by_value(session: onnxruntime.InferenceSession, names: list[str], fed: onnx_cases.Values) -> list[Any]:
    """Only whether it runs: the comparison of BF16 with ONNX Runtime itself needs no numbers when it is right."""
    make = onnxruntime.OrtValue
    values = {
        name: one if isinstance(one, make) else make.ortvalue_from_numpy(np.asarray(one)) for name, one in fed.items()
    }
    session.run_with_ort_values(names, values)
    return [np.empty(0, np.float32) for _ in names]


def table(results: Sequence[tuple[str, Result]], *, is_markdown: bool) -> str:
    """Counts by kind, then the reasons of all that was not served right, grouped."""
    counts = collections.Counter((kind, result.verdict) for kind, result in results)
    kinds = list(dict.fromkeys(kind for kind, _ in results))
    rows = [[verdict.value, *(str(counts[kind, verdict]) for kind in kinds)] for verdict in Verdict]
    batched = [sum(result.rows_max > 0 for kind, result in results if kind == one) for one in kinds]
    head = ["", *kinds]
    parts = [tables.markdown(head, [*rows, ["of the served: batched", *map(str, batched)]])]
    reasons = collections.Counter((result.verdict, _grouped(result.reason)) for _, result in results if result.reason)
    grouped = [[verdict.value, reason, str(count)] for (verdict, reason), count in reasons.most_common()]
    parts.append(tables.markdown(["", "why", "models"], grouped) if is_markdown else _listed(results))
    return "\n\n".join(parts)


def _grouped(reason: str) -> str:
    """A reason without the names in it."""
    plain = re.sub(r"^.*?cannot be served: |\[ONNXRuntimeError\] : \d+ : ", "", reason)
    plain = re.sub(r"^(input|output) ('.*?') has type (\S+?),.*", r"a tensor has type \3", plain)
    plain = re.sub(r"^output .*?: (Not equal to tolerance \S+ \S+).*", r"\1", plain)
    return re.sub(r"'[^']*'|\"[^\"]*\"|/\S+", "…", plain).replace("|", "/")[:140]


def _listed(results: Sequence[tuple[str, Result]]) -> str:
    return "\n".join(
        f"{result.verdict.value}: {kind} {result.case.name}: {result.reason}"
        for kind, result in results
        if result.reason
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge every test model and print the table; 1 if any is wrong."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--kind", choices=onnx_cases.KINDS, action="append", help="only these kinds")
    options.add_argument("--markdown", action="store_true", help="reasons grouped, instead of a line for each model")
    chosen = options.parse_args(arguments)
    results: list[tuple[str, Result]] = []
    for kind in chosen.kind or onnx_cases.KINDS:
        tested = list(onnx_cases.of_kind(kind))
        with serving(tested) as (client, _):
            results += [(kind, judge(client, case)) for case in tested]
    sys.stdout.write(table(results, is_markdown=chosen.markdown) + "\n")
    return int(any(result.verdict is Verdict.WRONG for _, result in results))


if __name__ == "__main__":
    sys.exit(main())
