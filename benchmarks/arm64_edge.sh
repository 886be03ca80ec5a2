#!/usr/bin/env bash
# Proves on an emulated Raspberry Pi 4 that `bottlefit-jax[edge]`, installed from aarch64 wheels alone, computes what
# the export computed (`bottlefit check`), and classifies images through a server on this host.
#
#   benchmarks/arm64_edge.sh BUNDLE IMAGE...
#
#   ARM64        folder of setup.sh and run.sh                    (default ../shared/arm64)
#   ARM64_CACHE  where the userland is kept, about 400 MB          (default: setup.sh's)
#   ARM64_BOARD  pi3 | pi4 | pi5                                   (default pi4)
#   ARM64_EXTRA  other wheels than the extra's
#   PYTHON       a host Python that has bottlefit-jax[serve]       (default .venv/bin/python, else python3)
#
# The wheels are those that pyproject.toml's extra `edge` asks for; nothing of the host's Python is seen inside.
# The emulator says nothing about speed, so the deadline is long.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
arm64=$(cd "${ARM64:-$here/../shared/arm64}" && pwd)
bundle=$(cd "$1" && pwd)
shift
python=${PYTHON:-$([ -x "$here/.venv/bin/python" ] && echo "$here/.venv/bin/python" || echo python3)}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

# what the extra asks for, without what setup.sh installs in the versions that it pins
extra=${ARM64_EXTRA-$("$python" - "$here/pyproject.toml" <<'X'
import re, sys, tomllib
wanted = tomllib.load(open(sys.argv[1], "rb"))["project"]["optional-dependencies"]["edge"]
print(*(one.replace(" ", "") for one in wanted if not re.match("ai-edge-litert|numpy|bottlefit", one)))
X
)}
ARM64_EXTRA=$extra ARM64_TFLR= ARM64_HOST_PYTHON=$python "$arm64/setup.sh" >&2

# the package as a user installs it, without the rest of the checkout
mkdir "$work/site" "$work/device"
cp -r "$here/bottlefit_jax" "$work/site/"
cp "$bundle/manifest.json" "$work/device/"
cp "$bundle/"*.tflite "$work/device/"
for file in rates.json golden.npz; do [ ! -e "$bundle/$file" ] || cp "$bundle/$file" "$work/device/"; done

cd "$here"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$python" -m bottlefit_jax.serve --bundle "$bundle" --port "$port" > "$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do grep -q '^listening' "$work/log" && break; kill -0 "$server"; sleep 0.2; done

cd "$work/device"
PYTHONPATH=$work/site "$arm64/run.sh" -c 'import platform; print("device:", platform.machine(), platform.python_version())'
if [ -e golden.npz ]; then  # bundles of the formats 1 to 3 have none
  PYTHONPATH=$work/site "$arm64/run.sh" -m bottlefit_jax.edge.check --bundle "$work/device" --server "localhost:$port"
fi
PYTHONPATH=$work/site "$arm64/run.sh" -m bottlefit_jax.edge \
  --bundle "$work/device" --server "localhost:$port" --deadline-ms 60000 --json "$@" > "$work/pi.json"
cd "$here"
"$python" -m bottlefit_jax.edge --bundle "$bundle" --server "localhost:$port" --json "$@" > "$work/host.json"
"$python" - "$work/pi.json" "$work/host.json" <<'X'
import json, sys
pi, host = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
assert len(pi) == len(host) > 0
for one, other in zip(pi, host):
    print(one["file"], one["label"], f"{one['probability']:.6f} (host {other['label']} {other['probability']:.6f})", one["bytes_sent"])
    assert one["label"] == other["label"] and abs(one["probability"] - other["probability"]) < 1e-3
X
