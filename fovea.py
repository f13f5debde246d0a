"""The `fovea` command: finds the verb and loads its half only, so serving needs no torch."""

import difflib
import importlib
import sys

# Verb → module, its typer application, and a line for the list.
VERBS = {
    "export": ("export.cli", "app", "turn a network into a verified ONNX model in a repository"),
    "inspect": ("export.inspect_cli", "app", "look at an exported model: its evidence, filters, feature maps"),
    "serve": ("service.cli", "serve_app", "serve a model repository over gRPC"),
    "load": ("service.load_cli", "load_app", "send a server images, as fast as it takes them or at a rate; measure"),
    "top": ("service.top_cli", "top_app", "watch running servers: throughput, latency, batches, queue, saturation"),
    "tune": ("service.tune_cli", "tune_app", "measure configurations of a model and write the best into config.pbtxt"),
    "token": ("service.token_cli", "token_app", "make an API token and its entry in the server's file"),
    "classify": ("service.classify_cli", "classify_app", "send images to a server and print their labels"),
}


def main() -> int:
    """Run the verb named first on the command line; the exit status."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in {"-h", "--help"}:
        print(_usage())  # noqa: T201 - the command's output
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"fovea: no verb {verb!r}.{hint}\n\n{_usage()}", file=sys.stderr)  # noqa: T201 - the command's output
        return 2
    module, application, _ = VERBS[verb]
    getattr(importlib.import_module(module), application)(arguments, prog_name=f"fovea {verb}")
    return 0


def _usage() -> str:
    verbs = "\n".join(f"  fovea {verb:<9} {text}" for verb, (_, _, text) in VERBS.items())
    return f"Usage: fovea VERB [OPTIONS]\n\n{verbs}\n\n`fovea VERB --help` shows a verb's options."


if __name__ == "__main__":
    sys.exit(main())
