"""From a model's folder to a model that serves: load, check, replay the goldens, warm.

Path: repository → **lifecycle** → engine.
"""

import dataclasses
import hashlib
import logging
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from protos import manifest_pb2, model_config_pb2
from service import datatypes, errors, metrics
from service.batching import batcher
from service.images import decode
from service.models import config as model_config
from service.models import goldens, manifest, repository
from service.runtime import session

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model: what the edge needs to check requests, and the batcher that runs them.

    Tensor specs have the batch dimension, -1, where `is_batched`.
    """

    name: str
    version: str
    config: model_config_pb2.ModelConfig
    inputs: dict[str, datatypes.TensorSpec]
    outputs: dict[str, datatypes.TensorSpec]
    labels: dict[str, list[str]]
    image: decode.ImageSpec | None
    properties: dict[str, str]
    numbers: metrics.ModelMetrics
    batcher: batcher.Batcher
    session: session.Session

    @property
    def is_batched(self) -> bool:
        """Whether the tensors' first dimension is the batch."""
        return self.config.max_batch_size > 0


@dataclasses.dataclass(frozen=True, slots=True)
class Loader:
    """What all models are loaded with."""

    options: session.Options
    samples_max: int
    clock: batcher.Clock
    metrics: metrics.Metrics

    def load(self, folder: repository.ModelFolder) -> ServedModel:
        """Load one model; returns when it can serve at full speed. Blocks: call it beside the event loop.

        Raises:
            ModelLoadError: says why not. NotForThisDevice: it is a variant for another provider.
        """
        started_s = time.perf_counter()
        said, noted = model_config.read(folder.name, folder.path / "config.pbtxt")
        for field in noted:
            log.warning("model %s: config.pbtxt sets %s, which has no effect here", folder.name, field)
        filename = (said.default_model_filename if said else "") or "model.onnx"
        loaded = session.Session(folder.name, _graph_path(folder, filename), self.options)
        config = model_config.complete(folder.name, said, loaded.inputs, loaded.outputs)
        if said is None:
            log.warning("model %s: no config.pbtxt, so its requests are not batched", folder.name)
        described = manifest.read(folder.name, loaded.metadata)
        manifest.check_provider(folder.name, described, self.options.provider.name)
        replayed = goldens.replay(
            folder.name,
            folder.version_path / "evidence",
            described,
            loaded,
            self.options.provider.name,
            is_batched=config.max_batch_size > 0,
        )
        served = self._assemble(folder, config, loaded, described)
        _warm(served)
        log.info(
            "model %s version %s ready after %.2f s on %s with %s",
            folder.name,
            folder.version,
            time.perf_counter() - started_s,
            self.options.provider.name,
            f"{replayed.rows} goldens reproduced within {replayed.worst:.1e}" if replayed else "no goldens",
        )
        return served

    def _assemble(
        self,
        folder: repository.ModelFolder,
        config: model_config_pb2.ModelConfig,
        loaded: session.Session,
        described: manifest_pb2.Manifest | None,
    ) -> ServedModel:
        numbers = metrics.ModelMetrics(self.metrics, folder.name, folder.version)
        queue = batcher.Batcher(
            folder.name,
            loaded.run_batch,
            model_config.policy(config),
            samples_max=self.samples_max,
            clock=self.clock,
            observer=numbers,
        )
        numbers.queue_samples.set_function(lambda: queue.samples_waiting)
        image = manifest.image_spec(folder.name, described)
        inputs = {spec.name: spec for spec in loaded.inputs}
        if image is not None and image.input not in inputs:
            raise errors.ModelLoadError(folder.name, f"its manifest feeds images to {image.input!r}, which is no input")
        return ServedModel(
            name=folder.name,
            version=folder.version,
            config=config,
            inputs=inputs,
            outputs={spec.name: spec for spec in loaded.outputs},
            labels=_labels(folder, config, described),
            image=image,
            properties=_properties(self.options, described),
            numbers=numbers,
            batcher=queue,
            session=loaded,
        )


def _graph_path(folder: repository.ModelFolder, filename: str) -> pathlib.Path:
    path = folder.version_path / filename
    if pathlib.PurePath(filename).name != filename:
        raise errors.ModelLoadError(folder.name, f"default_model_filename {filename!r} must be a plain file name")
    if not path.is_file():
        raise errors.ModelLoadError(folder.name, f"{path} is not there")
    return path


def _labels(
    folder: repository.ModelFolder,
    config: model_config_pb2.ModelConfig,
    described: manifest_pb2.Manifest | None,
) -> dict[str, list[str]]:
    labels = {}
    for output in config.output:
        if output.label_filename:
            labels[output.name] = _read_labels(folder, output.label_filename, described)
    return labels


def _read_labels(folder: repository.ModelFolder, filename: str, described: manifest_pb2.Manifest | None) -> list[str]:
    if pathlib.PurePath(filename).name != filename:
        raise errors.ModelLoadError(folder.name, f"label_filename {filename!r} must be a plain file name")
    try:
        content = (folder.path / filename).read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ModelLoadError(folder.name, f"its labels cannot be read: {error}") from error
    if (
        described is not None
        and described.labels_sha256
        and hashlib.sha256(content).hexdigest() != described.labels_sha256
    ):
        raise errors.ModelLoadError(
            folder.name, f"{filename} is not the file that the model was exported with; restore it, or export again"
        )
    return text.splitlines()


def _properties(options: session.Options, described: manifest_pb2.Manifest | None) -> dict[str, str]:
    properties = {"provider": options.provider.name, "provider_reason": options.provider.reason}
    if described is not None:
        properties |= {
            "architecture": described.architecture,
            "weights_source": described.weights_source,
            "weights_sha256": described.weights_sha256,
            "precision": described.precision,
        }
    if described is not None and described.HasField("image"):
        properties["image_input"] = described.image.input
    return properties


def _warm(served: ServedModel) -> None:
    """Run the smallest and the largest batch, so that no request pays for first-time work."""
    if any(-1 in spec.shape[1:] for spec in served.inputs.values()):
        return  # a size that only the request knows cannot be made up: some graphs refuse wrong ones
    shapes: Sequence[int] = (1, served.config.max_batch_size) if served.is_batched else (1,)
    for samples in shapes:
        inputs = {
            spec.name: np.zeros(_warm_shape(spec, samples, served.is_batched), spec.datatype.numpy)
            for spec in served.inputs.values()
        }
        try:
            served.session.run(inputs, served.outputs)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise errors.ModelLoadError(served.name, f"its first run, with {samples} rows, failed: {error}") from error


def _warm_shape(spec: datatypes.TensorSpec, samples: int, is_batched: bool) -> tuple[int, ...]:
    return (samples if is_batched else abs(spec.shape[0]), *spec.shape[1:]) if spec.shape else ()
