"""Removes what is not computation: notes of the exporter, paths of the machine that exported.

With it gone, two exports of the same weights are equal to the byte.
"""

import onnx


def strip(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Clear metadata, doc strings, value_info and the producer on model, graph, nodes and tensors."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    graph = stripped.graph
    for holder in (stripped, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        stripped.ClearField(field)
    del graph.value_info[:]
    graph.name = "fovea"
    return stripped, stripped != model
