"""From a PyTorch network to a verified ONNX model in a repository.

    zoo ─▶ weights ─▶ serving (uint8 in, normalisation folded) ─▶ trace ─▶ passes ─▶ verify ─▶ bundle

Each step is a module; `cli` runs them in this order. Nothing is written before it is verified.
"""
