#!/usr/bin/env bash
# Fetches buf (https://buf.build, Apache-2.0) from npm into .tools/, whose `buf curl` calls a gRPC server from
# nothing but its reflection, as grpcurl does; grpcurl itself is on no registry. Prints the binary's path.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/.tools/buf
if [ ! -x "$tools/node_modules/.bin/buf" ]; then
  mkdir -p "$tools"
  npm install --prefix "$tools" --no-fund --no-audit --silent @bufbuild/buf@1.75.0 >&2
fi
echo "$tools/node_modules/.bin/buf"
