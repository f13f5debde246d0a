"""API tokens: the file that says who they are and what they may, and the making of new ones.

Path: the file → **tokens** → guard; `fovea token` → **tokens**.

The file is TOML, a table for each token by its name:

    [mary]
    sha256 = "9f86d0…"              # of the token, in hexadecimal
    rights = ["infer"]              # or ["infer", "control"]; left out: infer
    models = ["lenet5", "resnet*"]  # left out: every model
    images_per_s = 100              # left out: no limit
    burst = 200                     # images at once; left out: those of one second

Tokens are 256 random bits, so one SHA-256 is enough: there is no dictionary to try, and a slow hash, which makes
guessing passwords dear, would make every call dear instead.
"""

import dataclasses
import fnmatch
import functools
import hashlib
import hmac
import logging
import math
import pathlib
import re
import secrets
import stat
import tomllib
from collections.abc import Mapping
from typing import Any

from service import errors
from service.wire.security import files

log = logging.getLogger(__name__)

PREFIX = "fovea_"
"""Begins every token, so that people and secret scanners know one when they see it."""

INFER, CONTROL = "infer", "control"
RIGHTS = (INFER, CONTROL)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Its secret is not."""

    name: str
    digest: bytes
    """SHA-256 of the secret."""
    rights: frozenset[str] = frozenset({INFER})
    models: tuple[str, ...] = ("*",)
    """Names, with * and ? as in file names."""
    images_per_s: float = math.inf
    burst: float = math.inf

    def may_use(self, model: str) -> bool:
        """Whether it may use a model."""
        return _matches(model, self.models)


@functools.lru_cache(maxsize=1024)  # clients ask for the same models again and again
def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns)


class Tokens:
    """The tokens in force. A change of the file that cannot be used is logged, and those before stay in force.

    Mutable state: the tokens, and the file as it was last looked at; touched only on the event loop.

    Raises:
        TokenFileError: the file cannot be read, or says something that is not understood.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._seen = files.stamp((path,))
        self._by_digest = read(path)
        log.info("tokens: %d in %s: %s", len(self._by_digest), path, self._names())

    def find(self, secret: str) -> Token | None:
        """Return the token with this secret.

        What is looked up is the hash: how long that takes says nothing about the secrets that exist, because nobody
        can choose hashes. The comparison at the end takes the same time whatever differs.
        """
        digest = hashlib.sha256(secret.encode()).digest()
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def current(self, known: Token) -> Token | None:
        """Return a token as the file has it now; None if it is no longer there."""
        return self._by_digest.get(known.digest)

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        seen = files.stamp((self._path,))
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._by_digest = read(self._path)
        except errors.TokenFileError as error:
            log.error("tokens: the changed file is not used, those before stay in force: %s", error)
            return
        log.info("tokens: read again, %d: %s", len(self._by_digest), self._names())

    def _names(self) -> str:
        return ", ".join(token.name for token in self._by_digest.values()) or "none, so nobody may call"


def read(path: pathlib.Path) -> dict[bytes, Token]:
    """Return the tokens of a file by their hashes.

    Raises:
        TokenFileError: see Tokens.
    """
    try:
        entries = tomllib.loads(files.text(path))
        if path.stat().st_mode & stat.S_IWOTH:
            log.warning("tokens: everybody on this machine may write %s, and so let themselves in", path)
        known = [checked(name, entry) for name, entry in entries.items()]
    except (ValueError, OSError) as error:
        raise errors.TokenFileError(path, str(error)) from error
    by_digest = {token.digest: token for token in known}
    if len(by_digest) != len(known):
        raise errors.TokenFileError(path, "has one sha256 under two names; make a token for each: fovea token NAME")
    return by_digest


def checked(name: str, entry: object) -> Token:
    """Return an entry's token.

    Raises:
        ValueError: an entry that is not understood.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"[{name}]: names are 1 to 64 letters, digits, '_', '.', '-'")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{name!r} is no table; expected [{name}] and sha256 = ... below it")
    readers = {
        "sha256": _digest,
        "rights": _rights,
        "models": _models,
        "images_per_s": _positive,
        "burst": _positive,
    }
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in readers:
            raise ValueError(f"[{name}] {key} is not known{errors.nearest(key, readers)}")
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"[{name}] {key} is {value!r}; expected {error}") from error
    if "sha256" not in values:
        raise ValueError(f"[{name}] has no sha256; make a token: fovea token {name}")
    if "burst" in values and "images_per_s" not in values:
        raise ValueError(f"[{name}] has burst without images_per_s; give both, or neither")
    rate = values.get("images_per_s", math.inf)
    return Token(
        name,
        values["sha256"],
        values.get("rights", frozenset({INFER})),
        values.get("models", ("*",)),
        rate,
        values.get("burst", max(1.0, rate)),
    )


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("64 hexadecimal digits in lower case, the SHA-256 of a token (never the token)")
    return bytes.fromhex(value)


def _rights(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(RIGHTS):
        raise ValueError(f"a list of {' and '.join(RIGHTS)}")
    return frozenset(value)


def _models(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError('a list of model names, such as ["resnet50", "lenet*"]; leave it out for every model')
    return tuple(value)


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError("a number above 0; leave it out for no limit")
    return float(value)


def made() -> tuple[str, str]:
    """Return a new secret and its SHA-256 in hexadecimal."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).hexdigest()
