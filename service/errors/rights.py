"""What a caller may not do, and who may."""

from service.errors.base import FoveaError


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
