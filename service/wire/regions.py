"""System shared memory: tensors that clients on this machine pass by name instead of in messages.

Path: SystemSharedMemoryRegister → **regions** → tensors read from it, replies write to it.

Off unless the server is started with --allow-client-shm: whoever may register can have the server read
and write the shared memory of every program that runs as the same user. Keys are names below /dev/shm
(shm_overview(7)), never paths, and a link there is not followed.
"""

import dataclasses
import mmap
import os
import pathlib
import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from protos import inference_pb2
from service import errors
from service.wire.security import peers

FOLDER = pathlib.Path("/dev/shm")
REGION, OFFSET, BYTE_SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
"""Parameters of a tensor that is in shared memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A registered part of a shared memory object: `byte_size` bytes from `offset`."""

    name: str
    key: str
    offset: int
    byte_size: int
    memory: mmap.mmap
    owner: str
    """The caller who registered it; others do not use it."""

    def view(self, offset: int, byte_size: int) -> memoryview:
        """Return bytes of the region, from an offset within it.

        Raises:
            BadRequest: they are not all within it.
        """
        if offset < 0 or byte_size < 0 or offset + byte_size > self.byte_size:
            raise errors.BadRequest(
                f"{byte_size} bytes from offset {offset} are not within shared memory region {self.name!r} of "
                f"{self.byte_size} bytes; register a larger one, or ask for less",
                errors.path("parameters", BYTE_SIZE),
            )
        begins = self.offset + offset
        return memoryview(self.memory)[begins : begins + byte_size]


class Part(NamedTuple):
    """Where a tensor is in shared memory: `byte_size` bytes from `offset` of a region."""

    region: str
    offset: int
    byte_size: int


def part(name: str, parameters: Mapping[str, inference_pb2.InferParameter]) -> Part | None:
    """Return where the parameters of the tensor `name` say that it is; None: not in shared memory.

    Raises:
        BadRequest: a region without a size, or a negative number.
    """
    if REGION not in parameters:
        return None
    found = Part(
        parameters[REGION].string_param,
        parameters[OFFSET].int64_param if OFFSET in parameters else 0,
        parameters[BYTE_SIZE].int64_param if BYTE_SIZE in parameters else 0,
    )
    if not found.region or found.byte_size <= 0 or found.offset < 0:
        raise errors.BadRequest(
            f"tensor {name!r} is said to be {found.byte_size} bytes from offset {found.offset} of shared memory region "
            f"{found.region!r}; send {REGION} (string), {BYTE_SIZE} (int64, more than 0) and {OFFSET} (int64)",
            errors.path("parameters", REGION),
        )
    return found


class Regions:
    """The registered regions.

    Mutable state: the regions by name; touched only on the event loop. Memory stays mapped while a request
    still has a view on it.
    """

    def __init__(self, *, are_allowed: bool) -> None:
        self._are_allowed = are_allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int, owner: str = "") -> None:
        """Map a shared memory object, or a part of it, under a name.

        Args:
            name: what requests call it.
            key: the object's, as shm_open(3) has it.
            offset: bytes from its beginning.
            byte_size: bytes of the region.
            owner: the caller, as a stream names it: the only one whose requests may name it.

        Raises:
            NotSupported: not allowed on this server.
            BadRequest: the name is taken, or there is no such object of that size.
        """
        self._require_allowed()
        if not name or name in self._regions:
            said = f"{name!r} is registered already; unregister it first" if name else "it has no name; give it one"
            raise errors.BadRequest(f"shared memory region {said}", "name")
        if byte_size <= 0 or offset < 0:
            sentence = f"a region of {byte_size} bytes from offset {offset}; register at least one byte"
            raise errors.BadRequest(sentence, "byte_size")
        self._regions[name] = Region(name, key, offset, byte_size, _mapped(key, offset + byte_size), _who(owner))

    def unregister(self, name: str) -> None:
        """Forget a region, or all for an empty name; a name that is not registered is no error, as in Triton."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def registered(self, name: str) -> Mapping[str, Region]:
        """Return one region, or all for an empty name.

        Raises:
            BadRequest: no such region.
        """
        return {name: self.find(name)} if name else dict(self._regions)

    def find(self, name: str) -> Region:
        """Return a region.

        Raises:
            BadRequest: no such region.
        """
        if name not in self._regions:
            raise _unknown(name, self._regions)
        return self._regions[name]

    def require_own(self, parts: Iterable[Part], caller: str) -> None:
        """Refuse a request that names regions of others: it would read or overwrite what is theirs.

        Raises:
            BadRequest: a region is not there, or somebody else's, which sounds the same.
        """
        for part in parts:
            if part.region in self._regions and self._regions[part.region].owner != _who(caller):
                raise _unknown(part.region, ())

    def view(self, part: Part) -> memoryview:
        """Return the bytes of a part, to read or to write.

        Raises:
            BadRequest: no such region, or not all within it.
        """
        return self.find(part.region).view(part.offset, part.byte_size)

    def _require_allowed(self) -> None:
        if not self._are_allowed:
            raise errors.NotSupported(
                "this server takes no shared memory from clients; send tensors in the message, "
                "or start it with --allow-client-shm"
            )


def _unknown(name: str, known: Iterable[str]) -> errors.BadRequest:
    return errors.BadRequest(
        f"no shared memory region {name!r} is registered{errors.nearest(name, known)}; "
        "register it with SystemSharedMemoryRegister",
        errors.path("parameters", REGION),
    )


def _who(caller: str) -> str:
    """A caller; all on this machine are one, by whichever address they come, unless tokens tell them apart."""
    return "this machine" if peers.is_local(f"{caller}:0") else caller


def _mapped(key: str, byte_size_min: int) -> mmap.mmap:
    plain = key.removeprefix("/")
    if not plain or "/" in plain or plain in {".", ".."}:
        raise errors.BadRequest(f"shared memory key {key!r} is no name; send the one given to shm_open", "key")
    try:
        descriptor = os.open(FOLDER / plain, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise errors.BadRequest(
            f"shared memory {key!r} cannot be opened: {error.strerror}; create it on this machine first", "key"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size < byte_size_min:
            raise errors.BadRequest(
                f"shared memory {key!r} has {found.st_size} bytes; a region up to byte {byte_size_min} was asked for",
                "byte_size",
            )
        try:  # a page that the file system cannot give would end the process when it is touched
            os.posix_fallocate(descriptor, 0, byte_size_min)
            return mmap.mmap(descriptor, byte_size_min)
        except OSError as error:
            raise errors.BadRequest(
                f"{byte_size_min} bytes of shared memory {key!r} are not to be had: {error.strerror}; free {FOLDER}",
                "byte_size",
            ) from error
    finally:
        os.close(descriptor)
