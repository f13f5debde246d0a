"""One frozen Settings object: flags, `FOVEA_*` environment, TOML file, defaults, in this order.

Path: cli → **settings** → server, which hands plain values to everything below it.

Field = type, default, unit, and how to choose it. The command line's flags are made from these
fields, so name, help and default stand in one place. Unknown names are errors that name the nearest.
"""

import os
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import pydantic
import pydantic_settings

from service import errors, transport_settings

ENV_PREFIX = "FOVEA_"
CONFIG_VARIABLE = "FOVEA_CONFIG"
CLIENT_PREFIX = "FOVEA_CLIENT_"
"""Variables of `fovea classify` and `fovea load`, which may stand in the same environment."""


class Settings(transport_settings.TransportSettings, pydantic_settings.BaseSettings):
    """What `fovea serve` can be told. Build it with `load`."""

    model_config = pydantic_settings.SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    repository: pathlib.Path = pydantic.Field(
        pathlib.Path("models"), description="Folder of models, in Triton's layout. Read only."
    )
    model_control_mode: Literal["none", "poll", "explicit"] = pydantic.Field(
        "none",
        description="none: the repository is loaded once, at start, and one model that cannot be served stops it. "
        "poll: what changes in the folder is loaded while the server serves. explicit: only --load-model and calls of "
        "RepositoryModelLoad and RepositoryModelUnload load and unload.",
    )
    load_model: tuple[str, ...] = pydantic.Field(
        (),
        description="A model to load at start in mode explicit; may be given several times (in the environment: "
        "separated by commas); * for all.",
    )
    repository_poll_s: float = pydantic.Field(
        15.0,
        gt=0,
        description="Seconds between two looks at the repository in mode poll. A change is loaded when a folder was "
        "still from one look to the next: longer than the longest pause while files are copied.",
    )
    allow_remote_control: bool = pydantic.Field(
        False,
        description="Let callers from other machines load and unload models, and change log levels. Without it only "
        "those on this machine may (all who come through a proxy here); with --tokens, those whose token has the "
        "right.",
    )
    allow_client_shm: bool = pydantic.Field(
        False,
        description="Let clients on this machine pass tensors in system shared memory. Whoever can call the server can "
        "then have it read and write the shared memory of every program of the same user.",
    )
    host: str = pydantic.Field(
        "127.0.0.1",
        description="Address to listen on. For others than this machine's own see deploy/SECURITY.md: tokens, TLS.",
    )
    grpc_port: int = pydantic.Field(8001, ge=0, le=65535, description="gRPC port; 0 takes a free one and logs it.")
    metrics_port: int = pydantic.Field(
        8002,
        ge=0,
        le=65535,
        description="HTTP port of /metrics and /v2/health/*; 0 takes a free one and logs it.",
    )
    device: Literal["auto", "cuda", "cpu"] = pydantic.Field(
        "auto",
        description="cuda: refuse to start without CUDA. auto: CUDA if it works, else CPU, and say so.",
    )
    threads: int = pydantic.Field(
        0,
        ge=0,
        description="Threads of one model run on the CPU; 0: instances and threads are chosen by measuring, within the "
        "cores that affinity and cgroup quota allow.",
    )
    decode_threads: int = pydantic.Field(0, ge=0, description="Threads that decode images; 0: as many as cores.")
    queue_samples_max: int = pydantic.Field(
        1024,
        ge=1,
        description="Samples that may wait per model, decoding included; more are refused. "
        "Choose the samples that the device runs in the longest wait worth having.",
    )
    stream_messages_max: int = pydantic.Field(
        256, ge=1, description="Unanswered messages per stream; reading stops there until answers are taken."
    )
    message_bytes_max: int = pydantic.Field(
        64 * 2**20,
        ge=1024,
        description="Bytes of one request message. A batch of 32 float32 224x224 images has 19 MB.",
    )
    image_bytes_max: int = pydantic.Field(32 * 2**20, ge=1, description="Bytes of one encoded image.")
    image_pixels_max: int = pydantic.Field(
        64 * 10**6,
        ge=1,
        description="Pixels (width x height) of one encoded image, checked before it is decoded; for models that take "
        "images as they are also of all images of a request.",
    )
    image_aspect_max: int = pydantic.Field(
        100, ge=1, description="Longer side of an encoded image over its shorter one."
    )
    decode_mode: Literal["fast", "exact"] = pydantic.Field(
        "fast",
        description="fast: large JPEG files are decoded at a fraction of their size before they are resized. "
        "exact: torchvision's preprocessing, within one level. BENCHMARKS.md has the difference.",
    )
    drain_delay_s: float = pydantic.Field(
        0.0,
        ge=0,
        description="Seconds to go on taking work after SIGTERM while readiness already says no: "
        "as long as load balancers need to notice.",
    )
    drain_grace_s: float = pydantic.Field(
        20.0, ge=0, description="Seconds that accepted work may take to finish after that."
    )
    log_format: Literal["console", "json"] = pydantic.Field(
        "console", description="console for people, json for collectors."
    )
    trace_endpoint: str = pydantic.Field(
        "",
        description="OTLP/gRPC endpoint of an OpenTelemetry collector, such as http://localhost:4317, to send traces "
        "to. Empty: no tracing, at no cost. Needs `pip install 'fovea[tracing]'`.",
    )
    trace_ratio: float = pydantic.Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests that come without a trace context that is traced; what comes with one is "
        "traced if its caller traces. Making its spans costs 0.15 ms of CPU, as much as LeNet-5: so one in a hundred.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = pydantic.Field(
        "info", description="Least severe level logged."
    )

    @pydantic.field_validator("load_model", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """The environment has one string."""
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @pydantic.field_validator("trace_endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s]+", value):
            raise ValueError("expected http://host:port of a collector's OTLP/gRPC receiver (often port 4317), no path")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[pydantic_settings.BaseSettings],
        init_settings: pydantic_settings.PydanticBaseSettingsSource,
        env_settings: pydantic_settings.PydanticBaseSettingsSource,
        dotenv_settings: pydantic_settings.PydanticBaseSettingsSource,
        file_secret_settings: pydantic_settings.PydanticBaseSettingsSource,
    ) -> tuple[pydantic_settings.PydanticBaseSettingsSource, ...]:
        """Only what `load` gives: it has merged the sources, so that their names could be checked."""
        return (init_settings,)


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Merge the sources: flags over environment over file over defaults.

    Args:
        flags: field name → value, for the flags given; `config` names a TOML file.
        environment: the process environment (default: os.environ).

    Raises:
        SettingsError: an unknown name (with the nearest known one) or a value out of range.
    """
    environment = os.environ if environment is None else environment
    flags = dict(flags)
    config_path = flags.pop("config", None) or environment.get(CONFIG_VARIABLE)
    from_file = _read_file(pathlib.Path(config_path)) if config_path else {}
    from_environment = _read_environment(environment)
    merged = {**from_file, **from_environment, **flags}
    try:
        chosen = Settings(**merged)
    except pydantic.ValidationError as error:
        raise errors.SettingsError(_explain(error, flags, from_environment)) from error
    if chosen.load_model and chosen.model_control_mode != "explicit":
        raise errors.SettingsError(
            f"--load-model is given, but --model-control-mode is {chosen.model_control_mode}, which loads every model; "
            "leave it out, or choose --model-control-mode explicit"
        )
    contradiction = chosen.contradiction(allows_remote_control=chosen.allow_remote_control)
    if contradiction is not None:
        raise errors.SettingsError(contradiction)
    return chosen


def _read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = {ENV_PREFIX + name.upper(): name for name in Settings.model_fields}
    values: dict[str, str] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENV_PREFIX) or variable.startswith(CLIENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in known:
            raise errors.SettingsError(
                f"environment variable {variable} is not a setting{errors.nearest(variable, known)}; "
                "unset or correct it"
            )
        values[known[variable]] = value
    return values


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise errors.SettingsError(f"settings file {path} cannot be read: {error}") from error
    for name in values:
        if name not in Settings.model_fields:
            raise errors.SettingsError(
                f"{name!r} in {path} is not a setting{errors.nearest(name, Settings.model_fields)}; "
                "remove or correct it"
            )
    return values


def _explain(error: pydantic.ValidationError, flags: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    sentences = []
    for problem in error.errors():
        name = str(problem["loc"][0])
        source = (
            flag_name(name)
            if name in flags
            else ENV_PREFIX + name.upper()
            if name in environment
            else f"{name} in the file"
        )
        sentences.append(f"{source} is {problem['input']!r}: {problem['msg']}")
    return "; ".join(sentences)


def flag_name(field: str) -> str:
    """Return the command-line flag of a field: "grpc_port" → "--grpc-port"."""
    return "--" + field.replace("_", "-")
