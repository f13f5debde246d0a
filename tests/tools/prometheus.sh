#!/usr/bin/env bash
# Fetches Debian's prometheus and promtool into .tools/, without installing anything, and prints the folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/.tools/prometheus
if [ ! -x "$tools/prometheus" ]; then
  rm -rf "$tools" && mkdir -p "$tools/part" && cd "$tools/part"
  apt-get download -qq prometheus >&2 2>/dev/null || { apt-get update -qq >&2 && apt-get download -qq prometheus >&2; }
  dpkg -x prometheus_*.deb .
  mv usr/bin/promtool usr/bin/prometheus "$tools"
  cd / && rm -rf "$tools/part"
fi
echo "$tools"
