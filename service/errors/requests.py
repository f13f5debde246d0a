"""What is wrong with a request, for its caller: sent again as it is, it fails again."""

from collections.abc import Iterable

from service.errors.base import FoveaError, nearest, path


class BadRequest(FoveaError):
    """A request that cannot be answered as it is.

    `field`: what in it, as a path such as `inputs["image"].shape`; "": all of it, or who has the message fills it in.
    """

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field

    @property
    def violation(self) -> str:
        """What was wrong with the field."""
        return str(self)


class BadTensor(BadRequest):
    """A tensor of a request does not fit the model. `part`: what of the tensor, such as ".shape"."""

    def __init__(self, model: str, tensor: str, got: str, wanted: str, part: str = "") -> None:
        super().__init__(
            f"input {tensor!r} of model {model!r}: got {got}; expected {wanted}", path("inputs", tensor) + part
        )
        self.model = model
        self.tensor = tensor
        self.got = got
        self.wanted = wanted

    @property
    def violation(self) -> str:
        """What was wrong with the field."""
        return f"got {self.got}; expected {self.wanted}"


class BadImage(BadRequest):
    """An encoded image cannot be decoded, or is too large."""

    def __init__(self, index: int, reason: str, remedy: str) -> None:
        super().__init__(f"image {index}: {reason}; {remedy}")
        self.index = index
        self.reason = reason


class MessageTooLarge(FoveaError):
    """A request message over the limit."""

    def __init__(self, got_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the message has {got_bytes} bytes; the limit is {limit_bytes}; send fewer images per message, "
            "send encoded files instead of pixels, or raise --message-bytes-max on the server"
        )
        self.got_bytes = got_bytes
        self.limit_bytes = limit_bytes


class ModelNotFound(FoveaError):
    """No such model, or no such version of it."""

    def __init__(self, model: str, version: str, known: Iterable[str]) -> None:
        names = sorted(known)
        what = f"model {model!r}" + (f" version {version!r}" if version else "")
        super().__init__(f"{what} is not served here{nearest(model, names)}; served: {', '.join(names) or 'nothing'}")
        self.model = model
        self.version = version


class VersionNotFound(ModelNotFound):
    """The model is served, this version of it is not."""

    def __init__(self, model: str, version: str, served: Iterable[str]) -> None:
        FoveaError.__init__(
            self,
            f"version {version!r} of model {model!r} is not served here; versions served: {', '.join(served)}; "
            "leave the version empty for the newest",
        )
        self.model = model
        self.version = version


class NotInRepository(ModelNotFound):
    """The repository has no such model."""

    def __init__(self, model: str, repository: str, known: Iterable[str]) -> None:
        names = sorted(known)
        FoveaError.__init__(
            self,
            f"model repository {repository} has no model {model!r}{nearest(model, names)}; "
            f"it has {', '.join(names) or 'none'}",
        )
        self.model = model
        self.version = ""


class NotSupported(FoveaError):
    """A part of the protocol that Fovea does not have."""
