"""Where a graph comes from: the zoo, a user's function, or an .onnx file.

Path: cli → **sources** → pipeline. Each source gives a traced graph and the reference that it is held against.
"""

import dataclasses
import importlib.util
import pathlib
import sys
from collections.abc import Mapping

import torch
from torch import nn

from export import errors, imported, options, preprocessing, reference, signature, subject, tapped, trace, weights, zoo


def find(target: str, chosen: options.Options) -> subject.Source:
    """Return the source that the person named: a zoo name, "file.py:function", or "file.onnx".

    Raises:
        ExportError: says why there is none.
    """
    if target.endswith(".onnx"):
        return imported.source(pathlib.Path(target), chosen)
    if ".py:" in target or target.endswith(".py"):
        return _from_file(target, chosen)
    return _from_zoo(zoo.find(target), chosen)


def _from_zoo(architecture: zoo.Architecture, chosen: options.Options) -> subject.Source:
    classes = chosen.classes or architecture.classes
    if chosen.classes and not architecture.classes:
        raise errors.OptionError(f"--classes is for classifiers; {architecture.name} is none")
    loaded = weights.load(architecture, chosen.weights, classes, chosen.seed)
    described = _adapted(loaded.preprocessing or architecture.preprocessing, architecture, chosen)
    return _traced(
        subject.Facts(
            name=architecture.name,
            origin=architecture.name,
            weights_source=loaded.source,
            weights_sha256=weights.sha256(loaded.network),
            outputs=architecture.outputs,
            stages=architecture.stages,
            parameters=_parameters(loaded.network),
            preprocessing=described,
            network=loaded.network,
            batch_max=architecture.batch_max,
            classes=classes,
            notes=(_accuracy(loaded),) if loaded.known else (),
        ),
        chosen,
    )


def _accuracy(loaded: weights.Loaded) -> str:
    assert loaded.known is not None, "asked only of known files"
    return (
        f"Published accuracy of these weights ({loaded.known.name}): "
        f"top-1 {loaded.known.top1:.3f} %, top-5 {loaded.known.top5:.3f} % on ImageNet's validation images."
    )


def _from_file(target: str, chosen: options.Options) -> subject.Source:
    path, function = _call(target)
    if chosen.input_size is None:
        raise errors.OptionError(f"{target} says nothing of its input; pass --input-size, such as 3x224x224")
    network = _built(path, function).eval().float()
    loaded_from = f"{path.name}:{function}"
    described = subject.normalised(preprocessing.plain(chosen.input_size), chosen)
    if chosen.weights:
        loaded = weights.into(network, chosen.weights, seed=chosen.seed, image=described)
        network, loaded_from = loaded.network, loaded.source
    sha256 = weights.sha256(network)
    with torch.inference_mode():
        try:
            outputs = tapped.named(network(torch.zeros(2, *chosen.input_size)))
        except (RuntimeError, TypeError, ValueError) as error:
            raise errors.UnsupportedNetwork(
                f"{target} cannot run on two images of {'x'.join(map(str, chosen.input_size))}: {error}; "
                "check --input-size, and that forward takes one (N, C, H, W) float32 tensor"
            ) from error
    stages = tapped.observed(network, torch.zeros(2, *chosen.input_size))
    logits = outputs.get(signature.LOGITS)
    return _traced(
        subject.Facts(
            name=path.stem if function == "build" else function,
            origin=f"{path.name}:{function}",
            weights_source=loaded_from,
            weights_sha256=sha256,
            outputs=tuple(outputs),
            stages={name: name for name, _ in network.named_children() if stages.get(name) == ""},
            parameters=_parameters(network),
            preprocessing=described,
            network=network,
            batch_max=32,
            classes=logits.shape[1] if logits is not None else 0,
        ),
        chosen,
    )


def _traced(facts: subject.Facts, chosen: options.Options) -> subject.Source:
    """Trace with every stage let out, and make the reference of what was asked for."""
    assert facts.network is not None, "only networks are traced"
    assert facts.preprocessing is not None, "networks take images"
    asked = {stage: facts.stages.get(stage, stage) for stage in chosen.stages}
    taps = {**facts.stages, **asked}
    height, width = subject.usual_size(facts.preprocessing)
    if asked:
        _refuse_hidden(asked, facts.network, torch.zeros(1, facts.preprocessing.channels, height, width))
    network = tapped.Tapped(facts.network, taps)
    try:
        graph = trace.trace(
            network,
            (facts.preprocessing.channels, height, width),
            [*facts.outputs, *(signature.FEATURES + tap for tap in taps)],
            is_any_size=facts.preprocessing.is_any_size,
        )
    finally:
        network.release()
    wanted = reference.TorchReference(facts.network, facts.outputs, asked, facts.preprocessing, chosen.layout)
    return subject.Source(facts, graph, wanted)


def _refuse_hidden(asked: Mapping[str, str], network: nn.Module, images_nchw: torch.Tensor) -> None:
    """Explain stages that are in the network and yet cannot be let out; unknown ones are for `Tapped`."""
    seen = tapped.observed(network, images_nchw)
    modules = {path for path, _ in network.named_modules()}
    for stage, path in asked.items():
        norm = seen.get(path, "")
        if norm:
            raise errors.UnknownStage(stage, f"its batch norm is folded into it; ask for features:{norm}")
        if path in modules and path not in seen:
            raise errors.UnknownStage(stage, "the network never calls it, or it does not return one tensor")


def _adapted(
    found: preprocessing.Preprocessing, architecture: zoo.Architecture, chosen: options.Options
) -> preprocessing.Preprocessing:
    """The weights' preprocessing, with the size and normalisation that the person asked for."""
    if (chosen.is_any_size or chosen.input_size) and not (architecture.takes_other_sizes or found.is_any_size):
        raise errors.OptionError(
            f"{architecture.name} works at {found.height}x{found.width} only: its last layers are made for that size; "
            "take a network with global pooling (a ResNet, GoogLeNet), or leave out --any-size and --input-size"
        )
    if chosen.transform_input is not None:
        if architecture.name != "googlenet":
            raise errors.OptionError(f"--transform-input is an option of googlenet; {architecture.name} has none")
        found = dataclasses.replace(found, transform_input=chosen.transform_input)
    if chosen.input_size:
        channels, height, width = chosen.input_size
        if channels != found.channels:
            raise errors.OptionError(
                f"{architecture.name} takes {found.channels} channels; --input-size says {channels}"
            )
        resize_px = round(found.resize_px * max(height, width) / found.height) if found.height else 0
        found = dataclasses.replace(found, height=height, width=width, resize_px=resize_px)
    if chosen.is_any_size:
        found = dataclasses.replace(found, height=0, width=0, resize_px=0)
    return subject.normalised(found, chosen)


def _parameters(network: nn.Module) -> dict[str, int]:
    return {name: parameter.numel() for name, parameter in network.named_parameters()}


def _call(target: str) -> tuple[pathlib.Path, str]:
    file, colon, function = target.rpartition(":")
    if not colon or not function.isidentifier():
        raise errors.OptionError(f"{target!r} names no function; expected path/to/file.py:function")
    path = pathlib.Path(file)
    if not path.is_file():
        raise errors.OptionError(f"{path} is not there; expected a Python file with a function {function!r}")
    return path, function


def _built(path: pathlib.Path, function: str) -> nn.Module:
    """Run the user's file, and the function in it that returns a network (or take the network itself)."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))  # what it imports from beside it
    try:
        spec.loader.exec_module(module)
        made = getattr(module, function, None)
        if made is None:
            names = [name for name in vars(module) if not name.startswith("_")]
            raise errors.OptionError(f"{path} has no {function!r}{errors.nearest(function, names)}")
        network = made() if isinstance(made, type) or not isinstance(made, nn.Module) else made
    except errors.ExportError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise errors.UnsupportedNetwork(
            f"{path}:{function} failed with {type(error).__name__}: {error}; it must run and return a torch.nn.Module"
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    if not isinstance(network, nn.Module):
        raise errors.UnsupportedNetwork(
            f"{path}:{function} returned a {type(network).__name__}; expected a torch.nn.Module"
        )
    return network
