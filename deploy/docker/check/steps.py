"""How this check runs other programs: each with a limit, its output in a file, and its end in an error.

Path: every module of the check → **steps**.
"""

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

LINES_OF_A_FAILURE = 25


class CheckFailed(Exception):
    """Something is not as it has to be; the message says what, and what to do."""


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    say(f"• {title}")
    begun = time.monotonic()
    yield
    say(f"  {time.monotonic() - begun:.0f} s")


def output(command: Sequence[str], limit_s: float = 60) -> str:
    """Run a short command and return what it printed.

    Raises:
        CheckFailed: it took too long, or did not end with 0.
    """
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"`{_short(command)}` took more than {limit_s:g} s") from error
    if ended.returncode != 0:
        raise CheckFailed(f"`{_short(command)}` ended with {ended.returncode}:\n{ended.stderr}{ended.stdout}")
    return ended.stdout


def logged(
    command: Sequence[str],
    log: pathlib.Path,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long command with its output in a file.

    Raises:
        CheckFailed: it took too long, or did not end with 0; the message ends with the file's last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w") as written:
            ended = subprocess.run(
                command, stdout=written, stderr=subprocess.STDOUT, timeout=limit_s, env=environment, check=False
            )
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"`{_short(command)}` took more than {limit_s:g} s; see {log}") from error
    if ended.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-LINES_OF_A_FAILURE:])
        raise CheckFailed(f"`{_short(command)}` ended with {ended.returncode}; the end of {log}:\n{last}")


def _short(command: Sequence[str]) -> str:
    text = " ".join(map(str, command))
    return text if len(text) < 300 else text[:300] + " …"
