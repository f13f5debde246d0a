"""What the server says of itself and its models: metadata, configuration, statistics.

Path: client → **describe** → engine.
"""

import importlib.metadata
from typing import Any

import grpc

from protos import inference_pb2
from service import control, datatypes, engine, errors, metrics
from service.models import config, description

# Only what works.
EXTENSIONS = (
    "classification", "model_configuration", "schedule_policy", "binary_tensor_data", "parameters", "statistics",
    "logging",
)  # fmt: skip
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
"""Where calls load and unload models."""

Context = grpc.aio.ServicerContext[Any, Any]


def version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("fovea")


class Describe:
    """The calls that only read. What they raise is told by failures.told."""

    def __init__(self, served: engine.Engine, mode: control.Mode, *, allows_shared_memory: bool) -> None:
        self._engine = served
        controlled = () if mode is control.Mode.NONE else CONTROL_EXTENSIONS
        self._extensions = (*EXTENSIONS, *controlled, *(["system_shared_memory"] if allows_shared_memory else []))

    async def server_live(
        self, request: inference_pb2.ServerLiveRequest, context: Context
    ) -> inference_pb2.ServerLiveResponse:
        """True: the event loop answers."""
        return inference_pb2.ServerLiveResponse(live=True)

    async def server_ready(
        self, request: inference_pb2.ServerReadyRequest, context: Context
    ) -> inference_pb2.ServerReadyResponse:
        """Whether new work should be sent here."""
        return inference_pb2.ServerReadyResponse(ready=self._engine.is_ready)

    async def model_ready(
        self, request: inference_pb2.ModelReadyRequest, context: Context
    ) -> inference_pb2.ModelReadyResponse:
        """Whether work for this model should be sent here; false for a model that is not served."""
        try:
            self._engine.model(request.name, request.version)
        except (errors.ModelNotFound, errors.NotServing):
            return inference_pb2.ModelReadyResponse(ready=False)
        return inference_pb2.ModelReadyResponse(ready=self._engine.is_ready)

    async def server_metadata(
        self, request: inference_pb2.ServerMetadataRequest, context: Context
    ) -> inference_pb2.ServerMetadataResponse:
        """Name, version, extensions."""
        return inference_pb2.ServerMetadataResponse(name="fovea", version=version(), extensions=self._extensions)

    async def model_metadata(
        self, request: inference_pb2.ModelMetadataRequest, context: Context
    ) -> inference_pb2.ModelMetadataResponse:
        """Tensors and properties of a model."""
        model = self._engine.model(request.name, request.version)
        return inference_pb2.ModelMetadataResponse(
            name=model.name,
            versions=[one.version for one in self._engine.versions(model.name)],
            platform=config.PLATFORM,
            inputs=[_tensor(spec) for spec in model.inputs.values()],
            outputs=[_tensor(spec) for spec in model.outputs.values()],
            properties=model.properties,
        )

    async def model_config(
        self, request: inference_pb2.ModelConfigRequest, context: Context
    ) -> inference_pb2.ModelConfigResponse:
        """The effective configuration of a model."""
        model = self._engine.model(request.name, request.version)
        return inference_pb2.ModelConfigResponse(config=model.config)

    async def model_statistics(
        self, request: inference_pb2.ModelStatisticsRequest, context: Context
    ) -> inference_pb2.ModelStatisticsResponse:
        """Counts of all models for an empty name, of all versions of a model for an empty version."""
        models = self._engine.models()
        if request.name:
            model = self._engine.model(request.name, request.version)
            models = [model] if request.version else self._engine.versions(request.name)
        return inference_pb2.ModelStatisticsResponse(
            model_stats=[_statistics(model, self._engine.numbers(model)) for model in models]
        )


def _tensor(spec: datatypes.TensorSpec) -> inference_pb2.ModelMetadataResponse.TensorMetadata:
    return inference_pb2.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype.wire, shape=spec.shape
    )


def _duration(duration: metrics.Duration) -> inference_pb2.StatisticDuration:
    return inference_pb2.StatisticDuration(count=duration.count, ns=duration.ns)


def _statistics(model: description.Description, numbers: metrics.ModelMetrics) -> inference_pb2.ModelStatistics:
    return inference_pb2.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=numbers.last_inference_ms,
        inference_count=numbers.samples,
        execution_count=numbers.runs,
        inference_stats=inference_pb2.InferStatistics(
            success=_duration(numbers.success),
            fail=_duration(numbers.fail),
            queue=_duration(numbers.queue),
            compute_input=_duration(numbers.compute_input),
            compute_infer=_duration(numbers.compute_infer),
            compute_output=_duration(numbers.compute_output),
        ),
        batch_stats=[
            inference_pb2.InferBatchStatistics(
                batch_size=size, compute_input=_duration(counts.gather), compute_infer=_duration(counts.run)
            )
            for size, counts in sorted(numbers.batches.items())
        ],
    )
