"""Asks the served demo model with NVIDIA's own client: `python -m deploy.docker.check.client ADDRESS GOLDEN.npz`.

Path: container → **client**, in a process of its own, outside the container. The goldens of the export are sent as
pixels and as files of every format that the server reads, so that every codec left in the image is used.
"""

import io
import pathlib
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image

MODEL = "lenet5"
TOLERANCE = 1e-5  # of probabilities; the report of the export allows as much
LOSSLESS: dict[str, dict[str, object]] = {"PNG": {}, "BMP": {}, "GIF": {}, "WEBP": {"lossless": True}}


def main() -> int:
    """Ask, compare, and print a line."""
    address, golden_path = sys.argv[1:]
    golden = np.load(pathlib.Path(golden_path), allow_pickle=False)
    pixels, expected = golden["input.image"], golden["output.probabilities"]
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        compare("pixels", ask(client, "UINT8", pixels), expected)
        for name, options in LOSSLESS.items():
            files = [encoded(image, name, options) for image in pixels]
            compare(name, ask(client, "BYTES", np.array(files, np.object_)), expected)
        files = [encoded(image, "JPEG", {"quality": 95}) for image in pixels]
        answers = ask(client, "BYTES", np.array(files, np.object_))
        assert (answers.argmax(1) == expected.argmax(1)).all(), "JPEG: other digits than in the goldens"
        version = client.get_server_metadata().version
    print(f"  tritonclient: server {version}, {len(pixels)} goldens as pixels, {', '.join(LOSSLESS)}, JPEG: all right")
    return 0


def ask(client: triton.InferenceServerClient, datatype: str, data: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probabilities, (N, 10)."""
    tensor = triton.InferInput("image", list(data.shape), datatype)
    tensor.set_data_from_numpy(data)
    answer: NDArray[np.float32] = client.infer(MODEL, [tensor], client_timeout=30).as_numpy("probabilities")
    return answer


def encoded(image: NDArray[np.uint8], name: str, options: dict[str, object]) -> bytes:
    """Return a (H, W, 1) uint8 image as a file."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(file, name, **options)
    return file.getvalue()


def compare(what: str, got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Assert that the answers are the goldens'."""
    distance = float(np.abs(got - expected).max())
    assert distance <= TOLERANCE, f"{what}: {distance:.1e} from the goldens, {TOLERANCE:.0e} allowed"


if __name__ == "__main__":
    sys.exit(main())
