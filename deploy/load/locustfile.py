"""Load on Fovea from many machines, with Locust's web page: each user asks, waits for its answer, asks again.

    pip install -e '.[load]'
    locust -f deploy/load/locustfile.py --host 127.0.0.1:8001 --model lenet5                 # page on :8089
    locust -f deploy/load/locustfile.py --host fovea:8001 --model lenet5 --master            # and on other machines
    locust -f deploy/load/locustfile.py --host fovea:8001 --model lenet5 --worker --master-host MASTER

Fovea's Python packages have to be importable on every machine. This is a closed loop: users who wait do not ask, so a
server that stalls looks better than it is. For latencies that count from the intended time use `fovea load --rate`.
"""

import pathlib
import time
from typing import Any, ClassVar

import grpc
import grpc.experimental.gevent
import locust
from locust import env as locust_env
from locust.argument_parser import LocustArgumentParser

from protos import inference_pb2
from service import errors
from service.loadgen import payloads, target

# Before the first channel: gRPC then waits in gevent's loop, as all that Locust runs does.
grpc.experimental.gevent.init_gevent()

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a refusal is counted, not sent again behind our back
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each user
]


@locust.events.init_command_line_parser.add_listener
def _flags(parser: LocustArgumentParser) -> None:
    parser.add_argument("--model", default="lenet5", help="Name of the model.")
    parser.add_argument("--images", default="", help="Image file or folder on every worker; without: random pixels.")
    parser.add_argument("--images-per-request", type=int, default=1, help="Images in one request.")
    parser.add_argument("--deadline-s", type=float, default=10.0, help="A request that takes longer has failed.")
    parser.add_argument("--per-user", type=float, default=0.0, help="Requests a second of each user; 0: at once again.")


def described(channel: grpc.Channel, model: str) -> target.Described:
    """Ask the server what a model takes."""

    def ask(method: str) -> Any:
        request = getattr(inference_pb2, f"{method}Request")(name=model)
        call: Any = channel.unary_unary(
            target.METHOD + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(inference_pb2, f"{method}Response").FromString,
        )
        return call(request, timeout=10.0)

    return target.of_answers(model, ask("ModelMetadata"), ask("ModelConfig").config)


def prepared(address: str, options: Any) -> list[bytes]:
    """Return the requests, serialised once."""
    with grpc.insecure_channel(address, _OPTIONS) as channel:
        takes = described(channel, options.model)
    parameters = payloads.Parameters(options.deadline_s, 0)
    if options.images:
        files = payloads.read([pathlib.Path(options.images)])
        return payloads.of_images(takes, files, options.images_per_request, parameters)
    return payloads.of_pixels(takes, options.images_per_request, parameters)


class Caller(locust.User):
    """One caller on a connection of its own.

    Mutable state: its connection, and the number of its next request; its greenlet's alone. The requests are made
    by the first caller of the process, and are all callers'.
    """

    requests: ClassVar[list[bytes]] = []

    def __init__(self, environment: locust_env.Environment) -> None:
        super().__init__(environment)
        self._channel = grpc.insecure_channel(self.host or "127.0.0.1:8001", _OPTIONS)
        self._call: Any = self._channel.unary_unary(target.METHOD + "ModelInfer")
        self._number = 0
        self._deadline_s: float = environment.parsed_options.deadline_s
        self._per_user: float = environment.parsed_options.per_user
        self._due_s = time.monotonic()

    def wait_time(self) -> float:
        """Nothing, or what is left until the next request is due."""
        if not self._per_user:
            return 0.0
        self._due_s = max(self._due_s + 1 / self._per_user, time.monotonic())
        return self._due_s - time.monotonic()

    @locust.task
    def infer(self) -> None:
        """Send one request and tell Locust what became of it."""
        self._number += 1
        request = self.requests[self._number % len(self.requests)]
        answer, failure, began_s = b"", None, time.perf_counter()
        try:
            answer = self._call(request, timeout=self._deadline_s)
        except grpc.RpcError as error:
            failure = RuntimeError(f"{error.code().name}: {error.details()}")
        self.environment.events.request.fire(
            request_type="grpc",
            name=f"ModelInfer {self.environment.parsed_options.model}",
            response_time=(time.perf_counter() - began_s) * 1e3,
            response_length=len(answer),
            exception=failure,
            context={},
        )

    def on_stop(self) -> None:
        """Close the connection."""
        self._channel.close()


@locust.events.test_start.add_listener
def _prepare(environment: locust_env.Environment, **_: Any) -> None:
    """Make the requests before the first caller comes; a mistake ends the run with a sentence."""
    runner = environment.runner
    if runner is None or type(runner).__name__ == "MasterRunner":
        return
    address = environment.host or Caller.host or "127.0.0.1:8001"
    try:
        Caller.requests = prepared(address, environment.parsed_options)
    except grpc.RpcError as error:
        _give_up(environment, f"{address} says {error.code().name}: {error.details()}")
    except errors.StartupError as error:
        _give_up(environment, str(error))


def _give_up(environment: locust_env.Environment, sentence: str) -> None:
    environment.process_exit_code = 1
    print(f"locustfile: {sentence}")  # noqa: T201 - Locust shows it beside its own lines
    if environment.runner is not None:
        environment.runner.quit()
