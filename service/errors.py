"""Every error that Fovea explains to somebody, as one tree.

Path: raised anywhere → **errors** → wire.status turns it into a gRPC status.

    FoveaError
    ├── StartupError            the server or a command does not start; said on stderr, exit status 1
    │   ├── SettingsError
    │   ├── PortTaken
    │   ├── CertificateError    of TLS
    │   ├── TokenFileError
    │   ├── ProviderUnavailable
    │   ├── RepositoryError     the repository as a whole
    │   └── ModelLoadError      one model
    │       └── NotForThisDevice    a variant made for another provider; the others are served
    ├── BadRequest              the caller must change the request
    │   ├── BadTensor
    │   └── BadImage
    ├── MessageTooLarge
    ├── ModelNotFound
    │   ├── VersionNotFound
    │   └── NotInRepository     there is nothing to load
    ├── Refused                 come back later; says when
    │   ├── QueueFull
    │   ├── TooLate             it could not be answered in time
    │   ├── RateExceeded        of the caller's token
    │   └── CallerFull          this caller has enough out
    ├── DeadlineExceeded
    ├── NotServing              starting or draining
    ├── WasReplaced             a model went away between two steps of a request
    ├── ControlOff              models are loaded at start only
    ├── ControlDenied           a caller who may not load and unload models
    ├── NotAuthenticated        no token, or one that is not known
    ├── NotPermitted            a token that does not reach so far
    ├── NotSupported            a part of the protocol that Fovea does not have
    └── RunFailed               the model's run failed; details are in the log

Messages say what was wrong, what was expected, and what to do. Facts stay as attributes.
"""

import difflib
import pathlib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known name, or ""."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def path(field: str, name: str) -> str:
    """Return the path of a named part of a request, such as `inputs["image"]`."""
    return f'{field}["{name}"]'


class FoveaError(Exception):
    """Base of everything that is explained to a person."""


class StartupError(FoveaError):
    """A server or command that does not start."""


class SettingsError(StartupError):
    """A setting that is unknown or has a value that it cannot have."""


class MissingExtra(StartupError):
    """A setting needs a library that only an extra installs."""

    def __init__(self, flag: str, library: str, extra: str, cause: ImportError) -> None:
        super().__init__(
            f"{flag} needs {library}, which cannot be imported ({cause}); "
            f"install it with `pip install 'fovea[{extra}]'`, or leave the setting out"
        )
        self.extra = extra


class PortTaken(StartupError):
    """Another process listens on the port."""

    def __init__(self, address: str, flag: str) -> None:
        super().__init__(
            f"cannot listen on {address}: "
            f"the port is taken or not allowed; stop the other process or choose another with {flag}"
        )
        self.address = address


class CertificateError(StartupError):
    """A file of TLS that cannot be used."""

    def __init__(self, path: pathlib.Path, wrong: str, remedy: str) -> None:
        super().__init__(f"TLS file {path} {wrong}; {remedy}")
        self.path = path


class TokenFileError(StartupError):
    """The file of tokens cannot be used."""

    def __init__(self, path: pathlib.Path, wrong: str) -> None:
        super().__init__(f"token file {path}: {wrong}; `fovea token NAME` prints entries as they should be")
        self.path = path


class ProviderUnavailable(StartupError):
    """The execution provider that was asked for cannot run here."""

    def __init__(self, device: str, missing: str) -> None:
        super().__init__(
            f"--device {device} was asked for, but {missing}; "
            "install what is missing, or run with --device cpu or --device auto"
        )
        self.device = device
        self.missing = missing


class RepositoryError(StartupError):
    """The model repository cannot be read, or holds nothing to serve."""


class ModelLoadError(StartupError):
    """One model of the repository cannot be served."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model!r} cannot be served: {reason}")
        self.model = model
        self.reason = reason


class NotForThisDevice(ModelLoadError):
    """A model in a precision that is for other execution providers than this server's."""

    def __init__(self, model: str, precision: str, wanted: Iterable[str], provider: str) -> None:
        super().__init__(
            model,
            f"it is the {precision} variant, for {' or '.join(wanted)}, and this server runs on {provider}; "
            "serve it on such a device, or its fp32 model here",
        )
        self.provider = provider


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


class Refused(FoveaError):
    """Work that is not taken now. `pause_s`: when to try again; None: as it is, never."""

    def __init__(self, sentence: str, pause_s: float | None) -> None:
        remedy = "it will not fit later either" if pause_s is None else f"try again in {pause_s * 1e3:.0f} ms"
        super().__init__(f"{sentence}; {remedy}")
        self.pause_s = pause_s


class QueueFull(Refused):
    """Too many samples or requests wait already."""

    def __init__(self, model: str, waiting: str, pause_s: float | None) -> None:
        super().__init__(
            f"the queue of model {model!r} is full: {waiting}; send less at once, or raise --queue-samples-max on the "
            "server (max_queue_size of the model's queue policy, if that is the limit)",
            pause_s,
        )
        self.model = model


class TooLate(Refused):
    """A request that could not be answered before its deadline; it was not run."""

    def __init__(self, model: str, answer_s: float, slack_s: float, pause_s: float | None) -> None:
        super().__init__(
            f"model {model!r} would need {answer_s * 1e3:.1f} ms to answer, and the deadline is in "
            f"{max(0.0, slack_s) * 1e3:.1f} ms; allow more time or send less at once",
            pause_s,
        )
        self.model = model
        self.answer_s = answer_s
        self.slack_s = slack_s


class RateExceeded(Refused):
    """A token has sent as many images as it may."""

    def __init__(self, caller: str, rate_per_s: float, pause_s: float) -> None:
        super().__init__(f"{caller} may send {rate_per_s:g} images a second and has sent more", pause_s)
        self.caller = caller


class CallerFull(Refused):
    """A caller has as many samples unanswered as it may."""

    def __init__(self, caller: str, out: int, limit: int, pause_s: float) -> None:
        super().__init__(
            f"{caller} has {out} samples unanswered; the limit is {limit} for each caller (--caller-samples-max); "
            "send less at once",
            pause_s,
        )
        self.caller = caller


class DeadlineExceeded(FoveaError):
    """The caller's deadline passed while the request waited."""

    def __init__(self, model: str, waited_s: float) -> None:
        super().__init__(
            f"the deadline passed after {waited_s * 1e3:.1f} ms "
            f"in the queue of model {model!r}, before a run could start; "
            "allow more time or send less at once"
        )
        self.model = model
        self.waited_s = waited_s


class NotServing(FoveaError):
    """The server is starting or draining."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the server is {state}; retry, on another address if there is one")
        self.state = state


class WasReplaced(FoveaError):
    """The model was replaced or unloaded after the request had named it, and before it was admitted."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} was replaced or unloaded as the request came; send it again")
        self.model = model


class ControlOff(FoveaError):
    """Models are neither loaded nor unloaded by calls."""

    def __init__(self) -> None:
        super().__init__(
            "this server loads its models once, at start; to load and unload them by calls, start it with "
            "--model-control-mode explicit (or poll)"
        )


class ControlDenied(FoveaError):
    """A caller from another machine wants to load or unload, or to change the server otherwise."""

    def __init__(self, peer: str) -> None:
        super().__init__(
            f"controlling the server is for callers on its own machine, and this call came from {peer}; call from "
            "there, or start the server with --tokens (or, in a network you trust, with --allow-remote-control)"
        )
        self.peer = peer


class NotAuthenticated(FoveaError):
    """A call whose caller is not known."""

    def __init__(self, wrong: str) -> None:
        super().__init__(f"{wrong}; send a token of this server as metadata 'authorization: Bearer TOKEN'")


class NotPermitted(FoveaError):
    """A token that does not reach so far."""

    def __init__(self, token: str, what: str, remedy: str) -> None:
        super().__init__(f"token {token!r} may not {what}; {remedy}")
        self.token = token


class NotSupported(FoveaError):
    """A part of the protocol that Fovea does not have."""


class RunFailed(FoveaError):
    """The model's run failed. The cause is logged, not told."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"the run of model {model!r} failed; the server's log has the cause; other requests are not affected"
        )
        self.model = model
