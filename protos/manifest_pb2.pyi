from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Color(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_UNSPECIFIED: _ClassVar[Color]
    COLOR_GRAY: _ClassVar[Color]
    COLOR_RGB: _ClassVar[Color]
    COLOR_BGR: _ClassVar[Color]

class Resize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESIZE_UNSPECIFIED: _ClassVar[Resize]
    RESIZE_STRETCH: _ClassVar[Resize]
    RESIZE_SHORTER_SIDE: _ClassVar[Resize]
    RESIZE_NONE: _ClassVar[Resize]

class Interpolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERPOLATION_UNSPECIFIED: _ClassVar[Interpolation]
    INTERPOLATION_BILINEAR: _ClassVar[Interpolation]
    INTERPOLATION_BICUBIC: _ClassVar[Interpolation]
COLOR_UNSPECIFIED: Color
COLOR_GRAY: Color
COLOR_RGB: Color
COLOR_BGR: Color
RESIZE_UNSPECIFIED: Resize
RESIZE_STRETCH: Resize
RESIZE_SHORTER_SIDE: Resize
RESIZE_NONE: Resize
INTERPOLATION_UNSPECIFIED: Interpolation
INTERPOLATION_BILINEAR: Interpolation
INTERPOLATION_BICUBIC: Interpolation

class ImageSpec(_message.Message):
    __slots__ = ("input", "height", "width", "color", "resize", "resize_px", "interpolation", "antialias")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RESIZE_PX_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    ANTIALIAS_FIELD_NUMBER: _ClassVar[int]
    input: str
    height: int
    width: int
    color: Color
    resize: Resize
    resize_px: int
    interpolation: Interpolation
    antialias: bool
    def __init__(self, input: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., color: _Optional[_Union[Color, str]] = ..., resize: _Optional[_Union[Resize, str]] = ..., resize_px: _Optional[int] = ..., interpolation: _Optional[_Union[Interpolation, str]] = ..., antialias: _Optional[bool] = ...) -> None: ...

class Tolerance(_message.Message):
    __slots__ = ("provider", "relative")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_FIELD_NUMBER: _ClassVar[int]
    provider: str
    relative: float
    def __init__(self, provider: _Optional[str] = ..., relative: _Optional[float] = ...) -> None: ...

class Normalization(_message.Message):
    __slots__ = ("mean", "std", "transform_input")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_INPUT_FIELD_NUMBER: _ClassVar[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    transform_input: bool
    def __init__(self, mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ..., transform_input: _Optional[bool] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("architecture", "weights_source", "weights_sha256", "labels_sha256", "precision", "image", "tolerances", "tools", "providers", "normalization")
    class ToolsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    LABELS_SHA256_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    weights_source: str
    weights_sha256: str
    labels_sha256: str
    precision: str
    image: ImageSpec
    tolerances: _containers.RepeatedCompositeFieldContainer[Tolerance]
    tools: _containers.ScalarMap[str, str]
    providers: _containers.RepeatedScalarFieldContainer[str]
    normalization: Normalization
    def __init__(self, architecture: _Optional[str] = ..., weights_source: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., labels_sha256: _Optional[str] = ..., precision: _Optional[str] = ..., image: _Optional[_Union[ImageSpec, _Mapping]] = ..., tolerances: _Optional[_Iterable[_Union[Tolerance, _Mapping]]] = ..., tools: _Optional[_Mapping[str, str]] = ..., providers: _Optional[_Iterable[str]] = ..., normalization: _Optional[_Union[Normalization, _Mapping]] = ...) -> None: ...
