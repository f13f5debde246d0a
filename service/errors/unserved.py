"""Why a request that may be right has no answer: no room, no time, or the server or the model fails it."""

from service.errors.base import FoveaError


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


class ImagesFull(Refused):
    """Images that keep their size take as much memory as they may."""

    def __init__(self, pixels: int, held: int, limit: int, pause_s: float) -> None:
        super().__init__(
            f"the images of this request have {pixels} pixels, and {held} of others are unanswered; the limit is "
            f"{limit} for images that keep their size (4 x --image-pixels-max); send less at once",
            pause_s,
        )
        self.pixels = pixels


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


class RunFailed(FoveaError):
    """The model's run failed. The cause is logged, not told."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"the run of model {model!r} failed; the server's log has the cause; other requests are not affected"
        )
        self.model = model
