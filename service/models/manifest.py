"""What an exported graph says of itself, read from its metadata.

Path: session → **manifest** → lifecycle.
"""

from google.protobuf import json_format

from protos import manifest_pb2
from service import errors
from service.images import decode

KEY = "fovea.manifest"


def read(model: str, metadata: dict[str, str]) -> manifest_pb2.Manifest | None:
    """Return the manifest, or None for a graph that Fovea did not export.

    Raises:
        ModelLoadError: it has fields that this version does not know, or does not parse.
    """
    text = metadata.get(KEY)
    if text is None:
        return None
    manifest = manifest_pb2.Manifest()
    try:
        json_format.Parse(text, manifest)
    except json_format.ParseError as error:
        raise errors.ModelLoadError(
            model, f"its manifest cannot be read ({error}); export it again with this version of Fovea"
        ) from error
    return manifest


def check_provider(model: str, manifest: manifest_pb2.Manifest | None, provider: str) -> None:
    """Refuse a variant that was made for other providers.

    Raises:
        NotForThisDevice: says for which.
    """
    if manifest is not None and manifest.providers and provider not in manifest.providers:
        raise errors.NotForThisDevice(model, manifest.precision, manifest.providers, provider)


def image_spec(model: str, manifest: manifest_pb2.Manifest | None) -> decode.ImageSpec | None:
    """Return how images feed the model; None if they do not.

    Raises:
        ModelLoadError: the spec is incomplete.
    """
    if manifest is None or not manifest.HasField("image"):
        return None
    try:
        return decode.image_spec(manifest.image)
    except (ValueError, KeyError) as error:
        raise errors.ModelLoadError(model, f"{error}; export it again with this version of Fovea") from error
