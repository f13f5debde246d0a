"""From a model's folder to a model that serves: load, check, warm, replay the goldens.

Path: repository → **lifecycle** → engine.
"""

import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable

from protos import manifest_pb2, model_config_pb2
from service import datatypes, errors, metrics
from service.batching import batcher, costs
from service.images import decode
from service.models import (
    completion,
    description,
    goldens,
    independence,
    labels,
    manifest,
    placement,
    policy,
    repository,
    warmup,
)
from service.models import config as model_config
from service.runtime import cores, instances, session
from service.tracing import trace

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 2.0
_RUN_OVERHEAD_S = 1e-4
"""What a run costs the event loop: planning it, handing it over, answering. LeNet-5: 0.1 to 0.2 ms."""

_AS_LARGE = 1.25
"""Graphs of the same nodes and tensors whose sizes differ by more than this factor are different networks: wider."""

Progress = Callable[[str, int, int], None]
"""Hears of a model that so many of so many batch sizes are warm; called from the loading thread."""


def unheard(model: str, done: int, total: int) -> None:
    """A Progress that nobody listens to."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model: what it is, what counts its requests, what batches them, what runs them."""

    description: description.Description
    numbers: metrics.ModelMetrics
    batcher: batcher.Batcher
    instances: instances.Instances
    graph_bytes: int
    stop_counting: Callable[[], None]

    async def drain(self) -> None:
        """Answer all that was admitted; afterwards it may be closed."""
        await self.batcher.aclose()

    def close(self) -> None:
        """End its threads, free its memory, and take its numbers off the metrics."""
        self.stop_counting()
        self.instances.release()
        self.instances.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a load goes by, beside the folder.

    `config`: JSON that stands for config.pbtxt, if it is not None. `before`: the same model as it was loaded
    before; if the graph is the same network, perhaps with other weights, the layout measured then holds, and none is
    tried: that would take all cores from those that serve.
    """

    config: str | None = None
    before: ServedModel | None = None


def read_config(name: str, path: pathlib.Path, given: Given) -> tuple[model_config_pb2.ModelConfig | None, list[str]]:
    """Return what is said about the model in the folder, None if nothing is; and the noted fields that are set.

    Raises:
        ModelLoadError: it cannot be read, or sets a field that is refused.
    """
    if given.config is not None:
        return model_config.from_json(name, given.config)
    return model_config.read(name, path / "config.pbtxt")


@dataclasses.dataclass(frozen=True, slots=True)
class _Checked:
    """A loaded model whose config and manifest fit it."""

    folder: repository.ModelFolder
    config: model_config_pb2.ModelConfig
    manifest: manifest_pb2.Manifest | None
    placement: placement.Placement
    graph_bytes: int
    instances: instances.Instances
    image: decode.ImageSpec | None
    labels: dict[str, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Loader:
    """What all models are loaded with."""

    options: session.Options
    samples_max: int
    clock: batcher.Clock
    metrics: metrics.Metrics
    progress: Progress = unheard
    tracer: trace.Tracer | None = None

    def load(self, folder: repository.ModelFolder, given: Given | None = None) -> ServedModel:
        """Load one model; returns when it can serve at full speed. Blocks: call it beside the event loop.

        Raises:
            ModelLoadError: says why not. NotForThisDevice: it is a variant for another provider.
        """
        started_s = time.perf_counter()
        checked = self._check(folder, given or Given())
        try:
            served = self._warm(checked)
        except BaseException:
            checked.instances.close()
            raise
        log.info(
            "model %s version %s ready after %.2f s on %s",
            *(folder.name, folder.version, time.perf_counter() - started_s, checked.placement.options.provider.name),
        )
        return served

    def _check(self, folder: repository.ModelFolder, given: Given) -> _Checked:
        """Load the graph, and refuse what does not fit before any time is spent on it."""
        said, noted = read_config(folder.name, folder.path, given)
        placed = placement.of(folder.name, said, self.options)
        for field in (*noted, *placed.noted):
            log.warning("model %s: config.pbtxt sets %s, which has no effect here", folder.name, field)
        path = _graph_path(folder, (said.default_model_filename if said else "") or "model.onnx")
        graph_bytes = path.stat().st_size
        loaded = instances.Instances(
            folder.name, path, placed.options, placed.knobs, before=_before(said, graph_bytes, given.before)
        )
        verdict = independence.judge(loaded) if said is None else None
        graph = completion.Graph(loaded.inputs, loaded.optional, loaded.outputs)
        config = completion.complete(folder.name, said, graph, verdict)
        described = manifest.read(folder.name, loaded.metadata)
        manifest.check_provider(folder.name, described, placed.options.provider.name)
        image = manifest.image_spec(folder.name, described)
        if image is not None and image.input not in {spec.name for spec in loaded.inputs}:
            raise errors.ModelLoadError(folder.name, f"its manifest feeds images to {image.input!r}, which is no input")
        names = labels.read(folder.name, folder.path, config, described)
        return _Checked(folder, config, described, placed, graph_bytes, loaded, image, names)

    def _warm(self, checked: _Checked) -> ServedModel:
        """Everything that runs the model."""
        name, loaded, config = checked.folder.name, checked.instances, checked.config
        rules = policy.of(config)
        measured = loaded.warm(config.max_batch_size, self._reporter(name))
        replayed = goldens.replay(
            name,
            checked.folder.version_path / "evidence",
            checked.manifest,
            loaded,
            checked.placement.options.provider.name,
            is_batched=config.max_batch_size > 0,
        )
        log.info("model %s: %s", name, _said(replayed))
        entries = warmup.run(name, checked.folder.path, config, loaded)
        if entries:
            log.info("model %s: %d entries of model_warmup run", name, entries)
        numbers = self.metrics.numbers(name, checked.folder.version)
        known = costs.Costs(measured, _RUN_OVERHEAD_S)
        queue = batcher.Batcher(
            name,
            loaded.run_batch,
            rules,
            known,
            limits=batcher.Limits(
                self.samples_max, loaded.in_flight, loaded.devices, is_one_core=cores.available() == 1
            ),
            clock=self.clock,
            observer=numbers,
            tracer=self.tracer,
        )
        watched = metrics.Watched(queue.waiting, known.expected_s, loaded.devices)
        self.metrics.add(numbers, watched)
        stop_counting = functools.partial(self.metrics.remove, numbers, watched)
        return ServedModel(_describe(checked), numbers, queue, loaded, checked.graph_bytes, stop_counting)

    def _reporter(self, model: str) -> instances.Report:
        """Tells `progress` of every size, and the log every two seconds."""
        said_s = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal said_s
            self.progress(model, done, total)
            if time.monotonic() - said_s >= _REPORT_EVERY_S:
                said_s = time.monotonic()
                log.info("model %s: warming, %d of %d sizes", model, done, total)

        return report


def _said(replayed: goldens.Replay | None) -> str:
    if replayed is None:
        return "no goldens"
    return f"{replayed.rows} goldens reproduced within {replayed.worst:.1e} in {replayed.runs} runs"


def _describe(checked: _Checked) -> description.Description:
    loaded, folder = checked.instances, checked.folder
    return description.Description(
        name=folder.name,
        version=folder.version,
        config=checked.config,
        inputs=completion.narrowed((*loaded.inputs, *_optional(checked)), checked.config, checked.config.input),
        outputs=completion.narrowed(loaded.outputs, checked.config, checked.config.output),
        labels=checked.labels,
        image=checked.image,
        properties=_properties(checked),
    )


def _optional(checked: _Checked) -> tuple[datatypes.TensorSpec, ...]:
    """Inputs that requests may leave out. With a batch none: requests that differ in that could not share one."""
    return () if checked.config.max_batch_size else checked.instances.optional


def _before(
    said: model_config_pb2.ModelConfig | None, graph_bytes: int, before: ServedModel | None
) -> instances.Instances | None:
    """The instances whose layout may hold, if this is the same network: as large, and for batches as large."""
    if before is None or not graph_bytes / _AS_LARGE <= before.graph_bytes <= graph_bytes * _AS_LARGE:
        return None
    is_as_batched = said is None or said.max_batch_size == before.description.config.max_batch_size
    return before.instances if is_as_batched else None


def _graph_path(folder: repository.ModelFolder, filename: str) -> pathlib.Path:
    path = folder.version_path / filename
    if pathlib.PurePath(filename).name != filename:
        raise errors.ModelLoadError(folder.name, f"default_model_filename {filename!r} must be a plain file name")
    if path.is_dir():  # a model of several files, as Triton has it: the main file's name is fixed
        path = path / "model.onnx"
    if not path.is_file():
        raise errors.ModelLoadError(folder.name, f"{path} is not there")
    return path


def _properties(checked: _Checked) -> dict[str, str]:
    provider, described = checked.placement.options.provider, checked.manifest
    properties = {"provider": provider.name, "provider_reason": provider.reason, **checked.instances.properties}
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
