"""One export, from a source to verified bundles in memory. Writes nothing.

Path: sources → **pipeline** (passes, precision, verify, costs, latency, report) → bundle.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import onnx

from export import (
    bundle,
    costs,
    errors,
    evidence,
    latency,
    manifest,
    options,
    passes,
    precision,
    report,
    runtime,
    signature,
    subject,
    trials,
    verify,
)
from export.passes import front, global_average_pool, keep_outputs, name_nodes, no_ops, scores, strip
from export.report import inspection

Step = Callable[[str], AbstractContextManager[None]]
"""Shows a person which step is under way."""

CALIBRATION_IMAGES_MAX = 512
AGREEMENT_IMAGES_MAX = 128
LATENCY_BUDGET_S = 2.0
_LATENCY_BATCHES = (1, 8)


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """A verified graph in one precision, with what its report says of it."""

    precision: precision.Precision
    model: onnx.ModelProto
    batch_max: int
    passes: tuple[evidence.PassEffect, ...]
    result: verify.Result
    latency: tuple[evidence.Latency, ...]
    agreement: evidence.Agreement | None = None
    notes: tuple[str, ...] = ()


def export(
    source: subject.Source, place: bundle.Place, chosen: options.Options, labels: Sequence[str], step: Step
) -> list[bundle.Bundle]:
    """Return a verified bundle for each precision that was asked for.

    Args:
        source: the traced graph and its reference.
        place: name and version; a variant's name gets its precision behind it.
        chosen: what was asked for.
        labels: of the classes; may be empty.
        step: shows progress.

    Raises:
        VerificationError: a graph is not what it must be.
        OptionError: outputs that this network does not have, int8 without images to calibrate with.
    """
    names = output_names(source, chosen)
    _refuse_unbuildable(source, chosen)
    tried = _trials(source, chosen)
    with step("passes"):
        model, effects = passes.run(source.graph, passes_for(source, chosen, names))
    with step("verify"):
        exact = _verified(source, model, effects, tried, chosen, names)
    graphs = []
    for name in chosen.precisions:
        with step(name):
            graphs.append(
                exact if name == precision.FP32 else _variant(precision.PRECISIONS[name], exact, source, chosen)
            )
    with step("report"):
        return [_bundle(graph, source, place, chosen, labels, tried) for graph in graphs]


def _refuse_unbuildable(source: subject.Source, chosen: options.Options) -> None:
    """Refuse variants that cannot be built before any work is put into them."""
    variants = [name for name in chosen.precisions if name != precision.FP32]
    if variants and source.facts.preprocessing is None:
        raise errors.OptionError(
            f"--precision {variants[0]} needs a network that takes images; for an .onnx file pass --input uint8-nhwc"
        )
    if precision.INT8 in variants and chosen.calibration is None:
        raise errors.OptionError(
            "--precision int8 needs images that the network will see: pass --calibration DIR with a few hundred of "
            "them (PNG or JPEG); without, the ranges of its tensors would be guesses"
        )


def output_names(source: subject.Source, chosen: options.Options) -> list[str]:
    """Return the graph's outputs: the network's own, feature maps, probabilities, best classes.

    Raises:
        OptionError: scores of what is no classifier.
    """
    names = [*source.facts.outputs, *(signature.FEATURES + stage for stage in chosen.stages)]
    if (chosen.has_probabilities or chosen.tops) and not source.facts.is_classifier:
        raise errors.OptionError(
            f"{source.facts.origin} has no logits to make probabilities of; its outputs: "
            f"{', '.join(source.facts.outputs)}"
        )
    names += [signature.PROBABILITIES] if chosen.has_probabilities else []
    for count in chosen.tops:
        if source.facts.classes and count > source.facts.classes:
            raise errors.OptionError(f"top{count} is more than the {source.facts.classes} classes that there are")
        names += signature.top_names(count)
    return names


def passes_for(source: subject.Source, chosen: options.Options, names: Sequence[str]) -> list[passes.Pass]:
    """Return the passes that make of a traced graph what was asked for, in their order."""
    described = source.facts.preprocessing
    made: list[passes.Pass] = [no_ops.no_ops, global_average_pool.global_average_pool, name_nodes.name_nodes]
    if chosen.has_probabilities or chosen.tops:
        made.append(scores.softmax)
    made += [scores.best(count) for count in chosen.tops]
    made.append(keep_outputs.keeping(names))
    if described is not None:
        is_bytes = chosen.layout == signature.UINT8_NHWC
        affine = described.from_pixels() if is_bytes else described.from_normalised()
        made.append(front.taking(chosen.layout, affine))
    return [*made, strip.strip]


def _trials(source: subject.Source, chosen: options.Options) -> list[verify.Trial]:
    if source.facts.preprocessing is None:
        return trials.of_any(source.graph, chosen)
    return trials.of_images(source.facts.preprocessing, chosen.layout)


def _verified(
    source: subject.Source,
    model: onnx.ModelProto,
    effects: Sequence[evidence.PassEffect],
    tried: Sequence[verify.Trial],
    chosen: options.Options,
    names: Sequence[str],
) -> Graph:
    batch_max = source.facts.batch_max and (chosen.batch_max or source.facts.batch_max)
    if source.facts.network is not None and (wrong := verify.structure(model, names)):
        raise errors.VerificationError(wrong)
    batches = (*verify.BATCHES, batch_max) if batch_max else (tried[-1].rows,)
    result = verify.verify(model, source.reference, tried, batches, must_batch=source.facts.network is not None)
    notes: tuple[str, ...] = ()
    if batch_max and result.is_batch_invariant is False:
        batch_max = 0
        notes = ("Rows change when they run among others, so requests to this model are not batched.",)
    taken = _beside_before(source, model, tried[-1]) if batch_max else []
    return Graph(
        precision.PRECISIONS[precision.FP32], model, batch_max, tuple(effects), result, tuple(taken), notes=notes
    )


def _beside_before(source: subject.Source, model: onnx.ModelProto, trial: verify.Trial) -> list[evidence.Latency]:
    """Time a batch of one beside what the graph came from."""
    session, inputs = runtime.Session(model), trial.batch(1)
    what, run = source.reference.before()
    return latency.measure(
        {"ONNX Runtime": lambda: session.run(inputs), what: lambda: run(inputs)}, 1, LATENCY_BUDGET_S
    )


def _variant(kind: precision.Precision, exact: Graph, source: subject.Source, chosen: options.Options) -> Graph:
    described = source.facts.preprocessing
    assert described is not None, "refused before"
    inputs, images, where = trials.of_images(described, chosen.layout)[-1].inputs, 0, "noise and photos"
    if chosen.calibration is not None:
        inputs, images = trials.from_folder(chosen.calibration, described, chosen.layout, CALIBRATION_IMAGES_MAX)
        where = f"images of {chosen.calibration.name}"
    is_int8 = kind.name == precision.INT8
    model = precision.to_int8(exact.model, inputs) if is_int8 else precision.to_fp16(exact.model)
    judged = {name: verify.repeated(array, min(len(array), AGREEMENT_IMAGES_MAX)) for name, array in inputs.items()}
    found = precision.agreement(exact.model, model, judged, where, images if is_int8 else 0)
    if wrong := precision.violations(kind, found):
        raise errors.VerificationError(wrong)
    onnx.checker.check_model(model, full_check=True)
    timed: list[evidence.Latency] = []
    invariant, notes = None, (*exact.notes, *precision.warnings_of(kind, found))
    if runtime.CPU in kind.tolerances:
        timed = _beside_fp32(kind, exact.model, model, judged)
        invariant = verify.is_batch_invariant(runtime.Session(model), verify.Trial(where, judged))
        if exact.batch_max and not invariant:
            raise errors.VerificationError([f"{kind.name}: a row computed alone differs from the same row in a batch"])
    else:
        notes += (f"Not run on {' or '.join(kind.tolerances)} yet: the server replays the goldens there as it loads.",)
    return dataclasses.replace(
        exact,
        precision=kind,
        model=model,
        result=verify.Result((), invariant),
        notes=notes,
        latency=tuple(timed),
        agreement=found,
    )


def _beside_fp32(
    kind: precision.Precision, exact: onnx.ModelProto, model: onnx.ModelProto, rows: runtime.Arrays
) -> list[evidence.Latency]:
    """Time a variant for the CPU; one that is not would be fp32 between casts there: a figure that misleads."""
    sessions = {f"ONNX Runtime, {kind.name}": runtime.Session(model), "ONNX Runtime, fp32": runtime.Session(exact)}
    timed = []
    for batch in _LATENCY_BATCHES:
        inputs = {name: verify.repeated(array, batch) for name, array in rows.items()}
        ways = {what: functools.partial(session.run, inputs) for what, session in sessions.items()}
        timed += latency.measure(ways, batch, LATENCY_BUDGET_S)
    return timed


def _bundle(
    graph: Graph,
    source: subject.Source,
    place: bundle.Place,
    chosen: options.Options,
    labels: Sequence[str],
    tried: Sequence[verify.Trial],
) -> bundle.Bundle:
    named = bundle.Place(place.name + graph.precision.suffix, place.version)
    described = manifest.manifest(source.facts, graph.precision, chosen.layout, labels)
    content = manifest.content(graph.model, described)
    smallest = min(tried, key=lambda trial: next(iter(trial.inputs.values()))[0].nbytes)
    inputs, outputs, left_out = verify.goldens(graph.model, smallest.inputs, is_batched=graph.batch_max > 0)
    found = _evidence(graph, source, named, content, left_out)
    pictures = inspection.pictures(graph.model, found, labels, tried[-1].batch(1))
    return bundle.Bundle(
        place=named,
        content=content,
        config=manifest.config(named.name, graph.model, graph.batch_max, labels),
        labels=labels,
        goldens=bundle.Goldens(inputs, outputs),
        evidence=found,
        page=report.page(found, pictures),
    )


def _evidence(
    graph: Graph, source: subject.Source, place: bundle.Place, content: bytes, left_out: Sequence[str]
) -> evidence.Evidence:
    facts, model = source.facts, graph.model
    image_shape = subject.usual_size(facts.preprocessing) if facts.preprocessing else None
    identity = evidence.Identity(
        name=place.name,
        version=place.version,
        architecture=facts.origin,
        precision=graph.precision.name,
        providers=tuple(graph.precision.tolerances),
        weights_source=facts.weights_source,
        weights_sha256=facts.weights_sha256,
        graph_sha256=hashlib.sha256(content).hexdigest(),
        graph_bytes=len(content),
        opset=next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}),
        tools=manifest.tools(),
        preprocessing=facts.preprocessing.sentence() if facts.preprocessing else "the inputs are taken as they are",
    )
    notes = (*facts.notes, *graph.notes)
    if left_out:
        notes += (f"Not among the goldens, since one row is too large: {', '.join(left_out)}.",)
    return evidence.Evidence(
        identity=identity,
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        operators=evidence.Operators(
            passes.operators(source.graph),
            passes.operators(model),
            passes.operators(runtime.optimized(model)),
            graph.passes,
        ),
        costs=costs.analyse(model, facts.stages, image_shape, None if facts.network is None else facts.parameters),
        gate=graph.precision.gate,
        parity=graph.result.parity,
        is_batch_invariant=graph.result.is_batch_invariant if graph.batch_max else None,
        latency=graph.latency,
        machine=latency.machine(),
        agreement=graph.agreement,
        notes=notes,
    )


def _tensor(value: onnx.ValueInfoProto) -> evidence.Tensor:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return evidence.Tensor(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)
