#!/usr/bin/env bash
# Fetches NVIDIA's perf_analyzer into .tools/: the binary from tritonclient 2.50.0's wheel, the CUDA
# runtime that it links from its wheel, libb64 from Debian. Prints how to call it.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/.tools/perf_analyzer
if [ ! -x "$tools/perf_analyzer" ]; then
  rm -rf "$tools" && mkdir -p "$tools/part" && cd "$tools/part"
  "${PYTHON:-python3}" -m pip download -q --no-deps -d . tritonclient==2.50.0 nvidia-cuda-runtime-cu12==12.9.79 >&2
  for wheel in *.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" .; done
  apt-get download -qq libb64-0d >&2 2>/dev/null || { apt-get update -qq >&2 && apt-get download -qq libb64-0d >&2; }
  dpkg -x libb64-0d_*.deb .
  find . -name 'libb64.so*' -exec cp -P {} "$tools" \;
  find . -name 'libcudart.so*' -exec cp -P {} "$tools" \;
  cp "$(find . -name perf_analyzer -type f | head -1)" "$tools/perf_analyzer"
  chmod +x "$tools/perf_analyzer" && cd / && rm -rf "$tools/part"
fi
echo "LD_LIBRARY_PATH=$tools $tools/perf_analyzer"
