"""Every error that Fovea explains to somebody, as one tree.

Path: raised anywhere → **errors** → wire.status turns it into a gRPC status.

    FoveaError                  base
    │                           startup: for whoever starts it
    ├── StartupError            the server or a command does not start; said on stderr, exit status 1
    │   ├── SettingsError
    │   ├── MissingExtra        a library that is not installed
    │   ├── PortTaken
    │   ├── CertificateError    of TLS
    │   ├── TokenFileError
    │   ├── ProviderUnavailable
    │   ├── RepositoryError     the repository as a whole
    │   └── ModelLoadError      one model
    │       └── NotForThisDevice    a variant made for another provider; the others are served
    │                           requests: the caller has to ask for something else
    ├── BadRequest              the caller must change the request
    │   ├── BadTensor
    │   └── BadImage
    ├── MessageTooLarge
    ├── ModelNotFound
    │   ├── VersionNotFound
    │   └── NotInRepository     there is nothing to load
    ├── NotSupported            a part of the protocol that Fovea does not have
    │                           unserved: the request may be right, and is not answered
    ├── Refused                 come back later; says when
    │   ├── QueueFull
    │   ├── TooLate             it could not be answered in time
    │   ├── RateExceeded        of the caller's token
    │   ├── CallerFull          this caller has enough out
    │   └── ImagesFull          decoded images take enough memory
    ├── DeadlineExceeded
    ├── NotServing              starting or draining
    ├── WasReplaced             a model went away between two steps of a request
    ├── RunFailed               the model's run failed; details are in the log
    │                           rights: who may
    ├── ControlOff              models are loaded at start only
    ├── ControlDenied           a caller who may not load and unload models
    ├── NotAuthenticated        no token, or one that is not known
    └── NotPermitted            a token that does not reach so far

Messages say what was wrong, what was expected, and what to do. Facts stay as attributes.
"""

from service.errors.base import (
    FoveaError,
    nearest,
    path,
)
from service.errors.requests import (
    BadImage,
    BadRequest,
    BadTensor,
    MessageTooLarge,
    ModelNotFound,
    NotInRepository,
    NotSupported,
    VersionNotFound,
)
from service.errors.rights import (
    ControlDenied,
    ControlOff,
    NotAuthenticated,
    NotPermitted,
)
from service.errors.startup import (
    CertificateError,
    MissingExtra,
    ModelLoadError,
    NotForThisDevice,
    PortTaken,
    ProviderUnavailable,
    RepositoryError,
    SettingsError,
    StartupError,
    TokenFileError,
)
from service.errors.unserved import (
    CallerFull,
    DeadlineExceeded,
    ImagesFull,
    NotServing,
    QueueFull,
    RateExceeded,
    Refused,
    RunFailed,
    TooLate,
    WasReplaced,
)

__all__ = [
    "BadImage",
    "BadRequest",
    "BadTensor",
    "CallerFull",
    "CertificateError",
    "ControlDenied",
    "ControlOff",
    "DeadlineExceeded",
    "FoveaError",
    "ImagesFull",
    "MessageTooLarge",
    "MissingExtra",
    "ModelLoadError",
    "ModelNotFound",
    "NotAuthenticated",
    "NotForThisDevice",
    "NotInRepository",
    "NotPermitted",
    "NotServing",
    "NotSupported",
    "PortTaken",
    "ProviderUnavailable",
    "QueueFull",
    "RateExceeded",
    "Refused",
    "RepositoryError",
    "RunFailed",
    "SettingsError",
    "StartupError",
    "TokenFileError",
    "TooLate",
    "VersionNotFound",
    "WasReplaced",
    "nearest",
    "path",
]
