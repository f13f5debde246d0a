"""Which versions of a model are served: `version_policy` of config.pbtxt.

Path: repository and config → **versions** → control.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Hashable, Iterable, Mapping

from protos import model_config_pb2
from service import errors
from service.models import handed, lifecycle, repository

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The versions of a model that are to serve: where each is, and what tells it from another state of it."""

    folders: Mapping[str, repository.ModelFolder]
    contents: Mapping[str, Hashable]


def choose(place: pathlib.Path, name: str, given: handed.Handed) -> Choice:
    """Decide which versions of a model serve. Reads the disk: call it beside the event loop.

    Raises:
        NotInRepository, ModelLoadError: see repository.look, lifecycle.read_config and chosen.
    """
    seen = repository.look(place, name)
    said, _ = lifecycle.read_config(name, seen.path, lifecycle.Given(given.config))
    served = chosen(name, seen.versions, said)
    return Choice(
        {version: seen.folder(version) for version in served},
        {version: object() if given.files else (given.config, seen.content(version)) for version in served},
    )


def chosen(model: str, present: Iterable[str], config: model_config_pb2.ModelConfig | None) -> list[str]:
    """Return the versions to serve, ascending. Without a policy the newest one, as Triton does.

    Args:
        model: its name.
        present: the versions in its folder.
        config: what its config.pbtxt says; None without one.

    Raises:
        ModelLoadError: none of the versions that the policy names is there.
    """
    ordered = sorted(present, key=int)
    policy = config.version_policy if config is not None else model_config_pb2.ModelVersionPolicy()
    match policy.WhichOneof("policy_choice"):
        case "all":
            return ordered
        case "specific":
            return _specific(model, ordered, [str(version) for version in policy.specific.versions])
        case _:
            return ordered[-max(1, policy.latest.num_versions) :]


def _specific(model: str, present: list[str], named: list[str]) -> list[str]:
    missing = [version for version in named if version not in present]
    served = [version for version in present if version in named]
    if not served:
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt says version_policy: specific {', '.join(named) or 'without versions'}; "
            f"the folder has {', '.join(present)}: name one of them",
        )
    if missing:
        log.warning("model %s: version_policy names %s, which are not there", model, ", ".join(missing))
    return served
