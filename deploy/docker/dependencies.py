"""Print what the image of one device installs: `python3 dependencies.py cpu|cuda`, in pyproject.toml's folder.

Path: pyproject.toml → **dependencies** → pip in the Dockerfile. Standard library only: it runs before anything is
installed.

ONNX Runtime is one import name in two distributions, and pyproject.toml names the one with CUDA, whose wheel is ten
times larger and which expects CUDA from elsewhere. So here:

1. cpu: plain onnxruntime, at the version that requirements.txt pins for onnxruntime-gpu.
2. cuda: onnxruntime-gpu with its extras, which bring CUDA and cuDNN.
3. Everything else as it is.
"""

import pathlib
import re
import sys
import tomllib

DISTRIBUTION = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu[cuda,cudnn]"}

_RUNTIME = re.compile(r"onnxruntime(-gpu)?(?P<versions>[^;]*)")
_RUNTIME_PIN = re.compile(r"^onnxruntime(-gpu)?(?P<versions>==[^\s;]+)", re.MULTILINE)


def image_dependencies(device: str, pyproject: str, requirements: str) -> list[str]:
    """Return the requirements of the image, one ONNX Runtime first.

    Args:
        device: a key of DISTRIBUTION.
        pyproject: text of pyproject.toml.
        requirements: text of requirements.txt, which pins exact versions.

    Raises:
        ValueError: the device is unknown, or pyproject.toml asks for no ONNX Runtime.
    """
    if device not in DISTRIBUTION:
        raise ValueError(f"DEVICE is {device!r}; expected one of: {', '.join(DISTRIBUTION)}")
    project = tomllib.loads(pyproject)["project"]
    # Tracing too: a setting turns it on, and nobody can install anything into a running image.
    declared = [*project["dependencies"], *project.get("optional-dependencies", {}).get("tracing", ())]
    runtimes = [match for line in declared if (match := _RUNTIME.match(line))]
    if not runtimes:
        raise ValueError("pyproject.toml asks for no ONNX Runtime; dependencies.py and it have to agree")
    chosen = _RUNTIME_PIN.search(requirements) or runtimes[0]
    others = [line for line in declared if not _RUNTIME.match(line)]
    return [DISTRIBUTION[device] + chosen["versions"].strip(), *others]


def main() -> None:
    """Print one requirement a line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python3 dependencies.py cpu|cuda")
    texts = (pathlib.Path(name).read_text() for name in ("pyproject.toml", "requirements.txt"))
    try:
        lines = image_dependencies(sys.argv[1], *texts)
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
