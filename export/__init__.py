"""From a PyTorch network to a verified ONNX model in a repository.

    zoo, file.py, file.onnx ─sources─▶ traced graph + what it must compute (weights, tapped, trace, reference)
        ─passes─▶ one plain graph, bytes in ─verify─▶ fp32 ─precision─▶ fp16, int8
            ─costs, latency, report─▶ evidence ─bundle─▶ the repository, all of it or nothing

Each step is a module; `pipeline` runs them in this order for one network, `command` for one or all.
Nothing is written before it is verified.
"""
