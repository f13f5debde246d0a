"""TraceSetting, Triton's call, as far as it fits: which share of requests is traced, and whether at all.

Path: controls → **trace_settings** → tracing.

`trace_rate` N traces one request of N that come without a trace context; 0: none of them. `trace_level` is OFF or
TIMESTAMPS. An empty value sets a setting back to what the server was started with. Settings of single models,
limits (`trace_count`) and files are not there: spans go to the collector (https://docs.nvidia.com/deeplearning/
triton-inference-server/user-guide/docs/protocol/extension_trace.html).
"""

from protos import inference_pb2
from service import errors
from service.tracing import trace

_LEVEL, _RATE = "trace_level", "trace_rate"
_FIXED = {"trace_count": "-1", "log_frequency": "0", "trace_mode": "opentelemetry", "trace_file": ""}
"""What cannot be changed, and its only value."""
_ON, _OFF = "TIMESTAMPS", "OFF"


class TraceSettings:
    """Tells and changes the settings. Mutable state: the tracer's."""

    def __init__(self, tracer: trace.Tracer | None) -> None:
        self._tracer = tracer
        self._ratio_at_start = 0.0 if tracer is None else tracer.ratio

    def answer(self, request: inference_pb2.TraceSettingRequest) -> inference_pb2.TraceSettingResponse:
        """Make the changes that are asked for, all or none, and return the settings.

        Raises:
            BadRequest: a setting that is not known, or a value that it cannot have.
            NotSupported: a value of Triton's that this server does not have.
        """
        if request.settings and request.model_name:
            raise errors.NotSupported("tracing is set for all models at once; leave model_name out")
        asked = {name: list(value.value) for name, value in request.settings.items()}
        for name, values in asked.items():
            _check(name, values)
        is_on = self._is_on(asked.get(_LEVEL))
        ratio = self._ratio(asked.get(_RATE))
        if self._tracer is not None:
            self._tracer.set(is_on=is_on, ratio=ratio)
        return self._told()

    def _is_on(self, levels: list[str] | None) -> bool:
        if levels is None:
            return self._tracer is not None and self._tracer.is_on
        if levels == [_OFF]:
            return False
        if levels and self._tracer is None:
            raise errors.NotSupported(
                f"{_LEVEL} {levels}: this server does not trace, only OFF; start it with --trace-endpoint"
            )
        if levels not in ([], [_ON]):
            raise errors.NotSupported(f"{_LEVEL} {levels}: only {_ON} or {_OFF}")
        return self._tracer is not None

    def _ratio(self, rates: list[str] | None) -> float:
        if rates is None:
            return 0.0 if self._tracer is None else self._tracer.ratio
        if not rates:
            return self._ratio_at_start
        if len(rates) != 1 or not rates[0].isascii() or not rates[0].isdigit() or len(rates[0]) > 18:
            raise errors.BadRequest(
                f"{_RATE} {rates} must be one whole number: of how many requests one is traced",
                errors.path("settings", _RATE),
            )
        rate = int(rates[0])
        if rate and self._tracer is None:
            raise errors.NotSupported(f"{_RATE} {rate}: this server does not trace; start it with --trace-endpoint")
        return 1 / rate if rate else 0.0

    def _told(self) -> inference_pb2.TraceSettingResponse:
        tracer = self._tracer
        response = inference_pb2.TraceSettingResponse()
        response.settings[_LEVEL].value.append(_ON if tracer is not None and tracer.is_on else _OFF)
        response.settings[_RATE].value.append(
            str(round(1 / tracer.ratio)) if tracer is not None and tracer.ratio else "0"
        )
        for name, value in _FIXED.items():
            response.settings[name].value.append(value)
        return response


def _check(name: str, values: list[str]) -> None:
    if name in {_LEVEL, _RATE}:
        return
    if name not in _FIXED:
        near = errors.nearest(name, (_LEVEL, _RATE, *_FIXED))
        raise errors.BadRequest(f"trace setting {name!r} is not known{near}", errors.path("settings", name))
    if values not in ([], [_FIXED[name]]):
        raise errors.NotSupported(f"trace setting {name!r} cannot be changed; it is {_FIXED[name]!r}")
