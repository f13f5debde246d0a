"""What a kubelet does to a Pod, as a program inside the Pod's network: probes, and a caller's request beside them.

Reads one JSON question a line, writes one JSON answer a line. Run by pod.py.
"""

import http.client
import json
import pathlib
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service import client

ADDRESS = "127.0.0.1"


def grpc_probe(asked: dict[str, Any], timeout_s: float) -> str:
    """As the kubelet's gRPC probe: plain text, SERVING or not."""
    with grpc.insecure_channel(f"{ADDRESS}:{asked['port']}") as channel:
        request = health_pb2.HealthCheckRequest(service=asked.get("service", ""))
        try:
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s).status
        except grpc.RpcError as error:
            return str(error.code())
    return "ok" if status == health_pb2.HealthCheckResponse.SERVING else f"status {status}"


def http_probe(asked: dict[str, Any], ports: dict[str, int], timeout_s: float) -> str:
    """As the kubelet's HTTP probe: 200 to 399, or not."""
    port = ports[asked["port"]] if isinstance(asked["port"], str) else asked["port"]
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=timeout_s)
    try:
        connection.request("GET", asked["path"])
        status = connection.getresponse().status
    except OSError as error:
        return repr(error)
    finally:
        connection.close()
    return "ok" if 200 <= status < 400 else f"status {status}"


def probe(question: dict[str, Any]) -> str:
    asked, timeout_s = question["probe"], question["probe"].get("timeoutSeconds", 1)
    if "grpc" in asked:
        return grpc_probe(asked["grpc"], timeout_s)
    return http_probe(asked["httpGet"], question["ports"], timeout_s)


def classify(question: dict[str, Any]) -> str:
    """One request of a caller, for a label."""
    root = question["root"]
    trusted = grpc.ssl_channel_credentials(pathlib.Path(root).read_bytes()) if root else None
    image = pathlib.Path(question["classify"]).read_bytes()
    with client.SyncClient(f"{ADDRESS}:{question['port']}", credentials=trusted, timeout_s=10.0) as served:
        return served.classify(image, "lenet5", top=1)[0].label


if __name__ == "__main__":
    for line in sys.stdin:
        question = json.loads(line)
        answer = probe(question) if "probe" in question else classify(question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
