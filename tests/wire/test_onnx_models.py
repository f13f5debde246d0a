"""ONNX models without a config, served as they are: the onnx package's own tests, and graphs made to be awkward."""

import concurrent.futures
from collections.abc import Iterator

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx import parser
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.bench import conformance, onnx_cases

RIGHT = (
    "abs", "add_uint8", "and_bcast3v1d", "argmax_keepdims_example", "averagepool_2d_same_upper",
    "basic_conv_with_padding", "batchnorm_epsilon", "bitwise_and_ui64_bcast_3v1d", "cast_FLOAT_to_BFLOAT16",
    "cast_BFLOAT16_to_FLOAT", "cast_FLOAT16_to_DOUBLE", "castlike_BFLOAT16_to_FLOAT", "concat_2d_axis_1",
    "constant", "constantofshape_int_shape_zero", "convtranspose", "cumsum_1d", "dequantizelinear", "div_int8",
    "dropout_default", "einsum_batch_matmul", "equal_string", "expand_dim_changed", "eyelike_with_dtype",
    "gather_elements_0", "gathernd_example_int32", "gru_defaults", "hardmax_axis_0", "if", "loop11",
    "lstm_defaults", "matmul_2d", "max_float64", "maxpool_2d_uint8", "mod_mixed_sign_int64",
    "nonmaxsuppression_two_classes", "nonzero_example", "not_3d", "onehot_with_axis", "pow_types_float32_int64",
    "qlinearmatmul_2D_uint8_float32", "quantizelinear", "range_float_type_positive_delta", "reduce_sum_empty_set",
    "regex_full_match_basic", "regex_full_match_empty", "reshape_allowzero_reordered",
    "resize_upsample_sizes_nearest", "scan9_sum", "scatternd_add", "shape", "size_example",
    "slice_start_out_of_bounds", "softmax_axis_0", "split_zero_size_splits_opset18", "string_concat",
    "string_concat_utf8", "string_concat_empty_string", "string_split_basic", "string_split_empty_tensor",
    "tfidfvectorizer_tf_uniandbigrams_skip5", "top_k", "unique_sorted_with_axis", "where_long_example",
    "xor_bcast4v4d",
)  # fmt: skip
REFUSED = {
    "identity_opt": r"input 'opt_in' has type optional\(seq\(tensor\(float\)\)\), which the protocol cannot carry",
    "sequence_insert_at_back": r"input 'sequence' has type seq\(tensor\(int64\)\), which the protocol cannot carry",
    "castlike_FLOAT_to_FLOAT8E4M3FN": r"input 'like' has type tensor\(float8e4m3fn\), which the protocol cannot carry",
    "castlike_UINT4_to_FLOAT": r"input 'input' has type tensor\(uint4\), which the protocol cannot carry",
}

# Name → graph in ONNX's text form.
GRAPHS = {
    "text": "(string[N] x) => (string[N] y) { y = Identity(x) }",
    "words": "(string[2,2] x, float[] z) => (string[2,2] y, float[] w) { y = Identity(x) w = Neg(z) }",
    "doubled": "(bfloat16[2,3] x) => (bfloat16[2,3] y) { y = Identity(x) }",
    "half": "(float16[3] x) => (float16[3] y) { y = Neg(x) }",
    "scalar": "(float[] x) => (float[] y) { y = Neg(x) }",
    "empty": "(float[M,3] x) => (float[M,3] y, int64[2] s) { y = Neg(x) s = Shape(x) }",
    "nothing": "() => (float[2] y) { y = Constant<value = float[2] {1.5, -2.5}>() }",
    "several": "(int8[2] a, bool[3] b) => (int8[2] c, bool[3] d, int64[1] e) { c = Neg(a) d = Not(b) e = Shape(a) }",
    "defaults": "(float[3] x, float[3] b) => (float[3] y) <float[3] b = {1, 2, 3}> { y = Add(x, b) }",
    "unbatched": "(float[3,2] x) => (float[2,3] y) { y = Transpose(x) }",
    "rows": "(float[N,4] x) => (float[N,4] y, int64[N] b) { y = Softmax<axis=1>(x) b = ArgMax<axis=1, keepdims=0>(x) }",
    "columns": "(float[N,4] x) => (float[N,4] y) { y = Softmax<axis=0>(x) }",
    "step": "(int64[] from, int64[] to, int64[] by) => (int64[K] y) { y = Range(from, to, by) }",
    "complex": "(float[2] x) => (complex64[2] y) { y = Cast<to=14>(x) }",
}  # fmt: skip
ODD = "état/of the\n\"input:0\" 'x'"


def graph(name: str, body: str) -> onnx_cases.Case:
    plain = name.replace("_", "")
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {plain} {body}')
    return onnx_cases.Case(name, model, (), 0, 0)


def odd() -> onnx_cases.Case:
    """Names that no identifier could be."""
    made = graph("odd", "(float[2] x) => (float[2] y) { y = Neg(x) }")
    made.model.graph.input[0].name = made.model.graph.node[0].input[0] = ODD
    made.model.graph.output[0].name = made.model.graph.node[0].output[0] = ODD.upper()
    return made


def any_rank() -> onnx_cases.Case:
    """An input whose graph does not say how many dimensions it has."""
    made = graph("any_rank", "(float[2] x) => (float[2] y) { y = Neg(x) }")
    for value in (*made.model.graph.input, *made.model.graph.output):
        value.type.tensor_type.ClearField("shape")
    return made


@pytest.fixture(scope="module")
def cases() -> dict[str, onnx_cases.Case]:
    return {case.name.removeprefix("test_"): case for case in onnx_cases.of_kind("node")}


@pytest.fixture(scope="module")
def tester(cases: dict[str, onnx_cases.Case]) -> Iterator[triton.InferenceServerClient]:
    with conformance.serving(cases[name] for name in (*RIGHT, *REFUSED)) as (client, _):
        yield client


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[triton.InferenceServerClient, str]]:
    """A client, and the server's address; every graph is loaded by the test that needs it."""
    made = [*(graph(name, body) for name, body in GRAPHS.items()), odd(), any_rank()]
    with conformance.serving(made) as (client, server):
        yield client, server.address


@pytest.fixture
def client(served: tuple[triton.InferenceServerClient, str]) -> triton.InferenceServerClient:
    return served[0]


def ask(client: triton.InferenceServerClient, model: str, **inputs: np.ndarray) -> triton.InferResult:
    client.load_model(model)
    return client.infer(model, [tensor(name, values) for name, values in inputs.items()])


def tensor(name: str, values: np.ndarray) -> triton.InferInput:
    datatype = {"object": "BYTES", "bfloat16": "BF16", "bool": "BOOL", "float16": "FP16", "float32": "FP32"}.get(
        values.dtype.name, values.dtype.name.upper()
    )
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


@pytest.mark.parametrize("name", RIGHT)
def test_a_model_of_the_onnx_package_answers_what_is_recorded(
    tester: triton.InferenceServerClient, cases: dict[str, onnx_cases.Case], name: str
) -> None:
    result = conformance.judge(tester, cases[name])
    assert result.verdict is conformance.Verdict.RIGHT, result.reason


@pytest.mark.parametrize("name", REFUSED)
def test_a_type_that_the_protocol_cannot_carry_is_refused_at_load(
    tester: triton.InferenceServerClient, name: str
) -> None:
    with pytest.raises(InferenceServerException, match=REFUSED[name]):
        tester.load_model(f"test_{name}")


@pytest.mark.slow
def test_no_model_of_the_onnx_package_is_served_wrong() -> None:
    assert conformance.main([]) == 0


def test_complex_numbers_are_refused_at_load(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="complex64"):
        client.load_model("complex")


TEXTS = ["", "plain", "größer 日本 🐦", "nul\0inside", "x" * 70_000]


def test_strings_come_back_as_they_were(client: triton.InferenceServerClient) -> None:
    sent = np.array([text.encode() for text in TEXTS], np.object_)
    assert ask(client, "text", x=sent).as_numpy("y").tolist() == sent.tolist()
    square = np.array([[b"a", b"b"], [b"", "é".encode()]], np.object_)
    result = ask(client, "words", x=square, z=np.array(2.5, np.float32))
    assert result.as_numpy("y").tolist() == square.tolist()
    assert result.as_numpy("w").shape == ()
    assert result.as_numpy("w") == -2.5


def test_strings_may_come_as_typed_contents(served: tuple[triton.InferenceServerClient, str]) -> None:
    client, address = served
    client.load_model("text")
    request = service_pb2.ModelInferRequest(model_name="text")
    request.inputs.add(name="x", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", "é".encode()])
    with grpc.insecure_channel(address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert response.raw_output_contents[0] == b"\1\0\0\0a\2\0\0\0" + "é".encode()
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2])


@pytest.mark.parametrize(
    ("elements", "raw", "sentence"),
    [
        ([b"fine", b"\xff"], b"", r"element 1 is not UTF-8 \(byte 0: invalid start byte\); expected text in UTF-8"),
        ([b"one"], b"", r"got 1 elements; expected 2 for \[2\]"),
        ([], b"\1\0\0\0a", r"got 1 elements; expected 2 for \[2\]"),
        ([], b"\1\0\0\0a\2\0\0\0b", r"BYTES whose element 1 ends at byte 11 of 10"),
        ([], b"\1\0\0\0a\1\0\0\0\xc3", r"element 1 is not UTF-8"),
    ],
)
def test_strings_that_are_none_are_the_caller_s_fault(
    served: tuple[triton.InferenceServerClient, str], elements: list[bytes], raw: bytes, sentence: str
) -> None:
    client, address = served
    client.load_model("text")
    request = service_pb2.ModelInferRequest(model_name="text")
    request.inputs.add(name="x", datatype="BYTES", shape=[2])
    if elements:
        request.inputs[0].contents.bytes_contents.extend(elements)
    else:
        request.raw_input_contents.append(raw)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError, match=sentence) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_best_classes_of_strings_are_refused(client: triton.InferenceServerClient) -> None:
    client.load_model("text")
    asked = [triton.InferRequestedOutput("y", class_count=1)]
    with pytest.raises(InferenceServerException, match="holds strings, which have no best classes"):
        client.infer("text", [tensor("x", np.array([b"a"], np.object_))], outputs=asked)


def test_bfloat16_goes_in_and_comes_out_bit_by_bit(client: triton.InferenceServerClient) -> None:
    sent = np.array([[1.5, -0.0, np.inf], [3e38, 1e-40, np.nan]], ml_dtypes.bfloat16)
    result = ask(client, "doubled", x=sent)
    assert result.get_response().raw_output_contents[0] == sent.tobytes()
    assert result.get_response().outputs[0].datatype == "BF16"
    assert client.get_model_config("doubled").config.input[0].data_type == triton.model_config_pb2.TYPE_BF16


def test_bfloat16_values_have_best_classes(client: triton.InferenceServerClient) -> None:
    client.load_model("doubled")
    scores = np.array([[1, -4, 2], [8, 0, 3]], ml_dtypes.bfloat16)
    asked = [triton.InferRequestedOutput("y", class_count=2)]
    best = client.infer("doubled", [tensor("x", scores)], outputs=asked).as_numpy("y")
    assert best.tolist() == [b"8.000000:3", b"3.000000:5"]


@pytest.mark.parametrize(("model", "datatype", "shape"), [("half", "FP16", [3]), ("doubled", "BF16", [2, 3])])
def test_sixteen_bit_floats_travel_raw_only(
    served: tuple[triton.InferenceServerClient, str], model: str, datatype: str, shape: list[int]
) -> None:
    client, address = served
    client.load_model(model)
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype=datatype, shape=shape).contents.fp32_contents.extend([1, 2, 3])
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError, match="expected raw_input_contents"):
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)


def test_scalars_stay_scalars(client: triton.InferenceServerClient) -> None:
    result = ask(client, "scalar", x=np.array(3, np.float32))
    assert list(result.get_response().outputs[0].shape) == []
    assert result.as_numpy("y") == -3


def test_a_graph_that_does_not_say_the_rank_takes_any(client: triton.InferenceServerClient) -> None:
    for shape in ((), (2,), (2, 1, 3)):
        values = np.ones(shape, np.float32)
        assert (ask(client, "any_rank", x=values).as_numpy("y") == -values).all()


def test_tensors_without_elements_are_tensors(client: triton.InferenceServerClient) -> None:
    result = ask(client, "empty", x=np.empty((0, 3), np.float32))
    assert result.as_numpy("y").shape == (0, 3)
    assert result.as_numpy("s").tolist() == [0, 3]


def test_a_model_without_inputs_is_asked_for_nothing(client: triton.InferenceServerClient) -> None:
    assert ask(client, "nothing").as_numpy("y").tolist() == [1.5, -2.5]
    assert not client.get_model_metadata("nothing").inputs


def test_several_inputs_and_outputs_of_several_types(client: triton.InferenceServerClient) -> None:
    result = ask(client, "several", b=np.array([True, False, True]), a=np.array([1, -128], np.int8))
    assert result.as_numpy("c").tolist() == [-1, -128]
    assert result.as_numpy("d").tolist() == [False, True, False]
    assert result.as_numpy("e").tolist() == [2]


def test_an_input_with_a_default_may_be_left_out(client: triton.InferenceServerClient) -> None:
    x, b = np.zeros(3, np.float32), np.full(3, 7, np.float32)
    assert ask(client, "defaults", x=x).as_numpy("y").tolist() == [1, 2, 3]
    assert ask(client, "defaults", x=x, b=b).as_numpy("y").tolist() == [7, 7, 7]
    config = client.get_model_config("defaults", as_json=True)["config"]
    assert {one["name"]: one.get("optional", False) for one in config["input"]} == {"x": False, "b": True}
    with pytest.raises(InferenceServerException, match="needs x too"):
        client.infer("defaults", [tensor("b", b)])


def test_any_name_is_a_name(client: triton.InferenceServerClient) -> None:
    result = ask(client, "odd", **{ODD: np.array([1, 2], np.float32)})
    assert result.as_numpy(ODD.upper()).tolist() == [-1, -2]


def test_a_model_that_zeros_do_not_suit_is_served_all_the_same(client: triton.InferenceServerClient) -> None:
    numbers = {name: np.array(value, np.int64) for name, value in (("from", 2), ("to", 9), ("by", 3))}
    assert ask(client, "step", **numbers).as_numpy("y").tolist() == [2, 5, 8]


def said_of_batching(client: triton.InferenceServerClient, model: str) -> tuple[int, str]:
    client.load_model(model)
    config = client.get_model_config(model).config
    return config.max_batch_size, config.parameters["batching"].string_value


def test_rows_that_are_strangers_are_batched(client: triton.InferenceServerClient) -> None:
    assert said_of_batching(client, "rows") == (8, "up to 8 rows together gave the same bits as each alone")
    config = client.get_model_config("rows").config
    assert config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [4]
    assert list(client.get_model_metadata("rows").inputs[0].shape) == [-1, 4]
    rows = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    with concurrent.futures.ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda row: client.infer("rows", [tensor("x", row[None])]), rows))
    best = np.concatenate([answer.as_numpy("b") for answer in answers])
    assert best.tolist() == rows.argmax(1).tolist()


def test_rows_that_mix_are_not_batched(client: triton.InferenceServerClient) -> None:
    rows_max, reason = said_of_batching(client, "columns")
    assert rows_max == 0
    assert reason.startswith("output 'y' of a row is not the same alone and among ")
    rows = np.array([[0, 0, 0, 0], [0, 0, 0, 1000]], np.float32)
    assert ask(client, "columns", x=rows).as_numpy("y").tolist() == [[0.5, 0.5, 0.5, 0], [0.5, 0.5, 0.5, 1]]


def test_a_model_without_a_free_dimension_is_not_batched(client: triton.InferenceServerClient) -> None:
    assert said_of_batching(client, "unbatched") == (0, "the first dimension of 'x' is not free: [3, 2]")
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert (ask(client, "unbatched", x=values).as_numpy("y") == values.T).all()
