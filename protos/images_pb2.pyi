from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_KIND_UNSPECIFIED: _ClassVar[ScoreKind]
    SCORE_KIND_PROBABILITY: _ClassVar[ScoreKind]
    SCORE_KIND_RAW: _ClassVar[ScoreKind]

class Form(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORM_UNSPECIFIED: _ClassVar[Form]
    FORM_TENSOR: _ClassVar[Form]
    FORM_PNG: _ClassVar[Form]
SCORE_KIND_UNSPECIFIED: ScoreKind
SCORE_KIND_PROBABILITY: ScoreKind
SCORE_KIND_RAW: ScoreKind
FORM_UNSPECIFIED: Form
FORM_TENSOR: Form
FORM_PNG: Form

class Image(_message.Message):
    __slots__ = ("file", "pixels")
    FILE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    file: bytes
    pixels: Pixels
    def __init__(self, file: _Optional[bytes] = ..., pixels: _Optional[_Union[Pixels, _Mapping]] = ...) -> None: ...

class Pixels(_message.Message):
    __slots__ = ("height", "width", "channels", "data")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channels: int
    data: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Answered(_message.Message):
    __slots__ = ("model", "model_version", "total_seconds", "decode_seconds", "queue_seconds", "gather_seconds", "run_seconds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GATHER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    total_seconds: float
    decode_seconds: float
    queue_seconds: float
    gather_seconds: float
    run_seconds: float
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., total_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., queue_seconds: _Optional[float] = ..., gather_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "model", "model_version", "top_k")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    image: Image
    model: str
    model_version: str
    top_k: int
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., top_k: _Optional[int] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("answered", "classes", "score_kind")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    score_kind: ScoreKind
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., score_kind: _Optional[_Union[ScoreKind, str]] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("label", "index", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    score: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class FeaturesRequest(_message.Message):
    __slots__ = ("image", "model", "model_version", "layers", "form")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    image: Image
    model: str
    model_version: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    form: Form
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ..., form: _Optional[_Union[Form, str]] = ...) -> None: ...

class FeaturesResponse(_message.Message):
    __slots__ = ("answered", "maps")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    maps: _containers.RepeatedCompositeFieldContainer[Map]
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ..., maps: _Optional[_Iterable[_Union[Map, _Mapping]]] = ...) -> None: ...

class FilterRequest(_message.Message):
    __slots__ = ("image", "bank", "bank_version", "responses", "form")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    BANK_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    image: Image
    bank: str
    bank_version: str
    responses: _containers.RepeatedScalarFieldContainer[str]
    form: Form
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., bank: _Optional[str] = ..., bank_version: _Optional[str] = ..., responses: _Optional[_Iterable[str]] = ..., form: _Optional[_Union[Form, str]] = ...) -> None: ...

class FilterResponse(_message.Message):
    __slots__ = ("answered", "maps")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    maps: _containers.RepeatedCompositeFieldContainer[Map]
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ..., maps: _Optional[_Iterable[_Union[Map, _Mapping]]] = ...) -> None: ...

class Map(_message.Message):
    __slots__ = ("name", "channels", "height", "width", "tensor", "png", "low", "high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    channels: int
    height: int
    width: int
    tensor: bytes
    png: bytes
    low: float
    high: float
    def __init__(self, name: _Optional[str] = ..., channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., tensor: _Optional[bytes] = ..., png: _Optional[bytes] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "retry_pushback_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_PUSHBACK_MS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_pushback_ms: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_pushback_ms: _Optional[int] = ...) -> None: ...

class ClassifyStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: ClassifyRequest
    timeout_seconds: float
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[ClassifyRequest, _Mapping]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("id", "response", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: ClassifyResponse
    failure: Failure
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class FeaturesStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: FeaturesRequest
    timeout_seconds: float
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[FeaturesRequest, _Mapping]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class FeaturesStreamResponse(_message.Message):
    __slots__ = ("id", "response", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: FeaturesResponse
    failure: Failure
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[FeaturesResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class FilterStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: FilterRequest
    timeout_seconds: float
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[FilterRequest, _Mapping]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class FilterStreamResponse(_message.Message):
    __slots__ = ("id", "response", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: FilterResponse
    failure: Failure
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[FilterResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...
