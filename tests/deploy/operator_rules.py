"""deploy/prometheus as a PrometheusRule: kustomize reads no files outside of its folder, so there is a copy.

Run it to write the copy anew.
"""

import pathlib

import yaml

from tests.deploy import rendering

COPY = "deploy/kubernetes/components/prometheus-operator/rules.yaml"
HEAD = "# A copy of deploy/prometheus/*.rules.yml; after a change there: python -m tests.deploy.operator_rules\n"


def resource(root: pathlib.Path) -> rendering.Manifest:
    """All rule files as one resource, file by file."""
    files = sorted((root / "deploy/prometheus").glob("*.rules.yml"), reverse=True)  # recording rules first
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    name = {"name": "fovea", "labels": {"app.kubernetes.io/name": "fovea"}}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return {**kind, "metadata": name, "spec": {"groups": groups}}


if __name__ == "__main__":
    text = yaml.safe_dump(resource(rendering.ROOT), sort_keys=False, width=116, allow_unicode=True)
    (rendering.ROOT / COPY).write_text(HEAD + text)
