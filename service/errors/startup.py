"""Why a server or a command does not start, for whoever starts it: on stderr, exit status 1."""

import pathlib
from collections.abc import Iterable

from service.errors.base import FoveaError


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
