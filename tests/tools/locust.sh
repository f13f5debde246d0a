#!/usr/bin/env bash
# Fetches Locust into .tools/locust, beside the environment instead of into it: 30 packages that nothing else needs.
# Prints the folder for PYTHONPATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/.tools/locust
if [ ! -d "$tools/locust" ]; then
  rm -rf "$tools" "$tools.part"
  "${PYTHON:-python3}" -m pip install -q --disable-pip-version-check --target "$tools.part" locust==2.47.0 >&2
  mv "$tools.part" "$tools"
fi
echo "$tools"
