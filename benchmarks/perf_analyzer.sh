#!/usr/bin/env bash
# NVIDIA's perf_analyzer against our server: round trips, and where the server says that their time goes.
#
#   benchmarks/perf_analyzer.sh BUNDLE [FLAG OF perf_analyzer...]
#
#   PERF_ANALYZER   the program, where it is installed already
#   PERF_CACHE      where it is kept otherwise               (default ~/.cache/bottlefit-perf-analyzer)
#   SERVE_FLAGS     more flags of the server, as --batch-delay-ms 2
#   PYTHON          that has bottlefit-jax[serve]            (default .venv/bin/python, else python3)
#
# Without flags: 1, 8 and 32 clients that each send one latent after the other. The program is the wheel perf-analyzer
# (Linux, x86-64). It needs glibc 2.38; on an older Debian the C library of the next release is put beside it, for it alone.
set -euo pipefail
if [ $# -lt 1 ]; then sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$([ -x "$here/.venv/bin/python" ] && echo "$here/.venv/bin/python" || echo python3)}
cache=${PERF_CACHE:-$HOME/.cache/bottlefit-perf-analyzer}
bundle=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

newer_glibc() {
  local apt="$cache/apt" suite mirror
  suite=$(. /etc/os-release && [ "$ID" = debian ] && [ "$VERSION_ID" = 12 ] && echo trixie) ||
    { echo "error: perf_analyzer needs glibc 2.38: run this on a newer system, or set PERF_ANALYZER" >&2; exit 2; }
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | sed -n 1p)  # the one that this system is set up with
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$cache/glibc"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources"
  local flags=(-qq -o "Dir::Etc::SourceList=$apt/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt")
  (cd "$apt" && apt-get "${flags[@]}" update && apt-get "${flags[@]}" download \
    libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g libzstd1 && for file in *.deb; do dpkg -x "$file" "$cache/glibc"; done) >&2
  rm -rf "$apt"
}

analyzer=("${PERF_ANALYZER:-$cache/package/perf_analyzer/bin/perf_analyzer}")
if [ -z "${PERF_ANALYZER:-}" ]; then
  [ -x "${analyzer[0]}" ] || "$python" -m pip install --quiet --no-deps --only-binary=:all: --target "$cache/package" \
    --platform manylinux_2_38_x86_64 'perf-analyzer==2.60.0' >&2
  chmod +x "${analyzer[0]}"
  if ! "${analyzer[0]}" --version > /dev/null 2>&1; then
    libraries=$cache/glibc/usr/lib/x86_64-linux-gnu
    [ -x "$libraries/ld-linux-x86-64.so.2" ] || newer_glibc
    analyzer=("$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "${analyzer[0]}")
  fi
fi

cd "$here"
# shellcheck disable=SC2086
"$python" -m bottlefit_jax.serve --bundle "$bundle" --port 0 --log-level warning ${SERVE_FLAGS:-} > "$work/line" 2> "$work/log" &
server=$!
for _ in $(seq 150); do grep -q '^listening' "$work/line" && break; kill -0 "$server" || { cat "$work/log" >&2; exit 2; }; sleep 0.2; done
address=$(cut -d ' ' -f 3 "$work/line")
name=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["name"])' "$bundle/manifest.json")
head -1 "$work/line"
echo "load of this machine before: $(cut -d ' ' -f 1 /proc/loadavg), cores: $(nproc)"
analyze() { "${analyzer[@]}" -m "$name" -u "$address" -i grpc "$@"; }
if [ $# -gt 0 ]; then
  analyze "$@"
else
  for clients in 1 8 32; do
    analyze --concurrency-range "$clients" --measurement-interval 3000 --max-trials 3 --stability-percentage 999 --verbose |
      grep -E '^ +(Request count|Throughput|p[0-9]+ latency|Inference count|Execution count|Avg request latency)|[Ee]rror' |
      sed "s/^ */$clients clients: /"
  done
fi
kill "$server" && wait "$server"
server=
