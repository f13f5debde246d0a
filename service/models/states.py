"""What the repository's index says: the state of every model that was asked for, and why.

Path: control → **states** → wire.repository.
"""

import dataclasses
import enum
from collections.abc import Iterable


class State(enum.Enum):
    """Triton's states of a model version."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


NOT_LOADED = "not loaded"
UNLOADED = "unloaded"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line of the index. The version is empty where none is known."""

    name: str
    version: str
    state: State
    reason: str = ""


class States:
    """The entries. Mutable state: what is known of each version; touched only on the event loop."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}

    def set(self, name: str, version: str, state: State, reason: str = "") -> None:
        """Say how a version is; an empty version stands for the model as a whole."""
        versions = self._entries.setdefault(name, {})
        versions[version] = Entry(name, version, state, reason)
        if version:
            versions.pop("", None)

    def settle(self, name: str, ready: Iterable[str], failed: dict[str, str]) -> None:
        """Say how a model is after a change.

        Args:
            name: the model.
            ready: the versions that serve.
            failed: version → why what is on disk is not served; "" for the model as a whole.
        """
        whole = failed.get("", "")
        entries = {
            version: Entry(name, version, State.UNAVAILABLE, reason) for version, reason in failed.items() if version
        }
        entries |= {version: Entry(name, version, State.READY, failed.get(version, whole)) for version in ready}
        if not entries:  # nothing serves: what was there before still says so
            before = self._entries.get(name, {}).keys() - {""} or {""}
            entries = {version: Entry(name, version, State.UNAVAILABLE, whole or UNLOADED) for version in before}
        self._entries[name] = entries

    def forget(self, name: str) -> None:
        """Let go of a model that is neither on disk nor served."""
        self._entries.pop(name, None)

    def entries(self, on_disk: Iterable[str], *, only_ready: bool) -> list[Entry]:
        """Return the index, by name and version; models on disk that nobody asked for are named too."""
        entries = {name: list(versions.values()) for name, versions in self._entries.items()}
        for name in on_disk:
            if not entries.get(name):
                entries[name] = [Entry(name, "", State.UNAVAILABLE, NOT_LOADED)]
        return [
            entry
            for name in sorted(entries)
            for entry in sorted(entries[name], key=lambda entry: int(entry.version or 0))
            if entry.state is State.READY or not only_ready
        ]
