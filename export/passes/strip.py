"""Removes what is not computation: notes of the exporter, paths of the machine that exported.

With it gone, two exports of the same weights are equal to the byte.
"""

import onnx


def strip(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Clear metadata, doc strings, value_info and the producer on model, graph, nodes and tensors."""
    before = onnx.ModelProto()
    before.CopyFrom(model)
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    del graph.value_info[:]
    graph.name = "fovea"
    return model, before != model
