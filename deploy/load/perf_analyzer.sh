#!/usr/bin/env bash
# NVIDIA's perf_analyzer against Fovea: what a Triton user would run, and what the server says beside it.
#
#   deploy/load/perf_analyzer.sh 127.0.0.1:8001 lenet5                        # concurrency 1, 2, 4 ... 32, unary
#   deploy/load/perf_analyzer.sh 127.0.0.1:8001 lenet5 --streaming            # over streams
#   deploy/load/perf_analyzer.sh 127.0.0.1:8001 lenet5 -b 8 --concurrency-range 4
#
# Further arguments are perf_analyzer's own and win over those here. It sends random pixels; for float inputs they can
# be NaN: give --input-data FILE.json. Its --request-count hangs at times: a time window is used. PERF_ANALYZER names
# a binary of yours (NVIDIA's SDK image has one); otherwise tests/tools fetches one for Linux on x86_64.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 HOST:PORT MODEL [perf_analyzer's arguments]" >&2
  exit 2
fi
address=$1 model=$2
shift 2
here=$(cd "$(dirname "$0")/../.." && pwd)
if [ -n "${PERF_ANALYZER:-}" ]; then
  call=("$PERF_ANALYZER")
else
  read -r -a call <<<"$("$here/tests/tools/perf_analyzer.sh")" # LD_LIBRARY_PATH=... and the binary
fi
case " $* " in
  *" --concurrency-range "* | *" --request-rate-range "*) levels="" ;;
  *) levels="1 2 4 8 16 32" ;;
esac
one_run() {
  # 3 windows within 10 % of each other, at most 6 of them; latency to be judged by its 99th percentile
  timeout "${PERF_ANALYZER_TIMEOUT:-300}" env "${call[@]}" -i grpc -m "$model" -u "$address" --async \
    -p 2000 -r 6 -s 10 --percentile 99 "$@"
}
if [ -z "$levels" ]; then
  one_run "$@"
else
  for concurrency in $levels; do
    one_run --concurrency-range "$concurrency" "$@"
  done
fi
