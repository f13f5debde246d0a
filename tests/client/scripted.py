"""Small real gRPC servers that do what a test says, and remember what they were asked."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from protos import inference_pb2

Request = inference_pb2.ModelInferRequest
Response = inference_pb2.ModelInferResponse
StreamResponse = inference_pb2.ModelStreamInferResponse
Context = grpc.aio.ServicerContext[Any, Any]

Infer = Callable[[Request, Context], Awaitable[Response]]
Stream = Callable[[AsyncIterator[Request], Context], Awaitable[None]]


@dataclasses.dataclass
class Scripted(grpc.GenericRpcHandler):
    """The inference service; a method without behaviour is UNIMPLEMENTED, as it is where nobody wrote it."""

    infer: Infer | None = None
    stream: Stream | None = None
    address: str = ""
    methods: list[str] = dataclasses.field(default_factory=list)

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        self.methods.append(method)
        if method == "ModelInfer" and self.infer is not None:
            return grpc.unary_unary_rpc_method_handler(self.infer, Request.FromString, Response.SerializeToString)
        if method == "ModelStreamInfer" and self.stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self.stream, Request.FromString, StreamResponse.SerializeToString
            )
        if method == "ServerReady":
            return grpc.unary_unary_rpc_method_handler(self.ready)
        return None

    async def ready(self, request: bytes, context: Context) -> bytes:
        """No."""
        return b""


@contextlib.asynccontextmanager
async def serving(
    infer: Infer | None = None,
    stream: Stream | None = None,
    credentials: grpc.ServerCredentials | None = None,
    port: int = 0,
    **options: int,
) -> AsyncIterator[Scripted]:
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    scripted = Scripted(infer, stream)
    server.add_generic_rpc_handlers((scripted,))
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    scripted.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(None)


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def echoed(request: Request) -> Response:
    """The inputs as outputs."""
    response = Response(model_name=request.model_name, id=request.id, raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


async def echo(request: Request, context: Context) -> Response:
    return echoed(request)


async def echo_stream(requests: AsyncIterator[Request], context: Context) -> None:
    async for request in requests:
        await context.write(StreamResponse(infer_response=echoed(request)))


def refusal(request: Request, sentence: str, **parameters: int | str) -> StreamResponse:
    """An error as a stream's answer; parameters with _ for -, such as grpc_retry_pushback_ms=20."""
    answer = StreamResponse(error_message=sentence)
    answer.infer_response.id = request.id
    for name, value in parameters.items():
        parameter = answer.infer_response.parameters[name.replace("_", "-")]
        if isinstance(value, int):
            parameter.int64_param = value
        else:
            parameter.string_param = value
    return answer


@dataclasses.dataclass
class Held:
    """A stream that answers "held" requests only when the test lets it, and all others at once."""

    arrived: asyncio.Queue[Request] = dataclasses.field(default_factory=asyncio.Queue)
    release: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    streams: int = 0

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> None:
        self.streams += 1
        writing = asyncio.Lock()  # gRPC takes one message at a time
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                group.create_task(self._answer(request, context, writing))

    async def _answer(self, request: Request, context: Context, writing: asyncio.Lock) -> None:
        if request.model_name == "held":
            self.arrived.put_nowait(request)
            await self.release.wait()
        async with writing:
            await context.write(StreamResponse(infer_response=echoed(request)))

    async def infer(self, request: Request, context: Context) -> Response:
        self.arrived.put_nowait(request)
        await self.release.wait()
        return echoed(request)
