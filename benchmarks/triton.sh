#!/usr/bin/env bash
# A real Triton on this machine's CPU against our server: the same images, by the device's own command and by single messages.
#
#   benchmarks/triton.sh WORKDIR [IMAGE_OR_FOLDER...]
#
#   TRITON_CACHE    where Triton's virtual environment is kept   (default ~/.cache/bottlefit-triton)
#   TRITON_PYTHON   a Python of 3.11 to 3.13 with a shared library, for that environment   (default: that of PYTHON)
#   PYTHON          that has bottlefit-jax[export,serve,edge]     (default .venv/bin/python, else python3)
#
# Exports the run WORKDIR with --triton, serves that repository as it is, and checks: labels and probabilities of raw latents
# and payloads, the classification extension, a wrong head, a damaged payload among good ones, and that a device goes on
# where Triton is killed and started again. Without images, those of scikit-learn's digits are taken.
# Triton comes from the wheel nvidia-pytriton (Linux, x86-64). That has no ONNX Runtime backend, so triton_backend.py, which
# runs ONNX Runtime's wheel, takes that name. Everything listens on 127.0.0.1 alone, and every wait has an end.
set -euo pipefail
if [ $# -lt 1 ]; then sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$([ -x "$here/.venv/bin/python" ] && echo "$here/.venv/bin/python" || command -v python3)}
cache=${TRITON_CACHE:-$HOME/.cache/bottlefit-triton}
run=$(cd "$1" && pwd)
shift
images=()
for image in "$@"; do images+=("$(realpath "$image")"); done
cd "$here"
work=$(mktemp -d)
triton= server= device=
stop_triton() { [ -z "$triton" ] || kill "-${1:-TERM}" -- "-$triton" 2>/dev/null || true; }
finish() {
  for process in $server $device; do kill "$process" 2>/dev/null || true; done
  stop_triton KILL
  wait 2>/dev/null || true
  rm -rf "$work" "/dev/shm/bottlefit-$$-"*
}
trap finish EXIT
fail() { echo "error: $1" >&2; [ -z "${2:-}" ] || tail -20 "$2" >&2; exit 1; }
check() { timeout 300 "$python" -m benchmarks.triton_check "$@"; }

# Triton in an environment of its own, since the wheel pins versions that are not ours
venv=$cache/venv
if ! [ -x "$venv/ready" ]; then
  base=${TRITON_PYTHON:-$("$python" -c 'import sys; print(sys._base_executable)')}
  "$base" -m venv --clear "$venv"
  runtime=$("$python" -c 'import onnxruntime; print(onnxruntime.__version__)')
  timeout 1200 "$venv/bin/python" -m pip install --quiet --only-binary=:all: 'nvidia-pytriton==0.7.0' "onnxruntime==$runtime" >&2
  install -m 755 /dev/null "$venv/ready"
fi
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
mkdir -p "$work/backends/onnxruntime"
cp -r "$packages/pytriton/tritonserver/backends/python" "$work/backends/"
install -m 755 "$packages/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" "$work/backends/python/"
cp "$here/benchmarks/triton_backend.py" "$work/backends/onnxruntime/model.py"
with_libraries=(env LD_LIBRARY_PATH="$packages/nvidia_pytriton.libs" PATH="$venv/bin:$PATH")
if missing=$("${with_libraries[@]}" ldd "$work/backends/python/triton_python_backend_stub" | grep 'not found'); then
  fail "Triton's Python backend lacks $(echo $missing | cut -d ' ' -f 1): take a TRITON_PYTHON that has it"
fi

timeout 600 "$python" -m export.bundle --workdir "$run" --output "$work/bundle" --triton "$work/models" --name tail > "$work/export" ||
  fail "the export failed" "$work/export"
sed -n '/^rate/,/^bundle/p' "$work/export"
[ ${#images[@]} -gt 0 ] || { check digits "$work/images"; images=("$work/images"); }

read -r grpc http < <(check ports)
start_triton() {
  "${with_libraries[@]}" setsid "$packages/pytriton/tritonserver/bin/tritonserver" --model-repository "$work/models" \
    --backend-directory "$work/backends" --allow-metrics false \
    --grpc-address 127.0.0.1 --grpc-port "$grpc" --http-address 127.0.0.1 --http-port "$http" \
    --backend-config "python,shm-region-prefix-name=bottlefit-$$-" \
    --backend-config "onnxruntime,shm-region-prefix-name=bottlefit-$$-" > "$work/triton.log" 2>&1 &
  triton=$!
  check ready "127.0.0.1:$grpc" tail-payload || fail "Triton did not start" "$work/triton.log"
}
start_triton
echo "Triton $(sed -n 's/^| server_version *| \([0-9.]*\).*/\1/p' "$work/triton.log"), Python $version, cores: $(nproc)"
: > "$work/line"
"$python" -m bottlefit_jax.serve --bundle "$work/bundle" --port 0 --log-level warning > "$work/line" 2> "$work/log" &
server=$!
for _ in $(seq 150); do grep -q '^listening' "$work/line" && break; kill -0 "$server" || fail "our server did not start" "$work/log"; sleep 0.2; done
ours=$(cut -d ' ' -f 3 "$work/line")

classify() { # SERVER RATE OUTPUT
  timeout 300 "$python" -m bottlefit_jax.edge --bundle "$work/bundle" --server "$1" --rate "$2" --deadline-ms 60000 \
    --json --top 5 "${images[@]}" > "$3" 2> "$3.log" || fail "the device failed" "$3.log"
  [ ! -s "$3.log" ] || fail "the device complained" "$3.log"
}
for rate in $(check rates "$work/bundle"); do
  classify "127.0.0.1:$grpc" "$rate" "$work/triton.$rate"
  classify "$ours" "$rate" "$work/ours.$rate"
  check compare "$rate" "$work/triton.$rate" "$work/ours.$rate"
done
check messages "$work/bundle" "127.0.0.1:$grpc" "$ours"
check stranger "$work/bundle" "$work/stranger"
if "$python" -m bottlefit_jax.edge --bundle "$work/stranger" --server "127.0.0.1:$grpc" "${images[@]:0:1}" > /dev/null 2> "$work/refused"; then
  fail "a device of another head was served"
fi
echo "a device of another head: $(cat "$work/refused")"

rate=$(check rates "$work/bundle" | cut -d ' ' -f 2)
timeout 300 "$python" -m bottlefit_jax.edge --bundle "$work/bundle" --server "127.0.0.1:$grpc" --rate "$rate" --deadline-ms 60000 \
  --json --top 5 "${images[@]}" "${images[@]}" "${images[@]}" > "$work/restart" 2> "$work/restart.log" &
device=$!
for _ in $(seq 300); do [ "$(wc -l < "$work/restart")" -ge 20 ] && break; sleep 0.1; done
lines=$(wc -l < "$work/restart")
{ stop_triton KILL; wait "$triton" || true; } 2>/dev/null
kill -0 "$device" 2>/dev/null || fail "the device was done before Triton was killed: give more images"
echo "Triton was killed after $lines answers"
start_triton
wait "$device" || fail "the device failed" "$work/restart.log"
device=
check compare "$rate" "$work/restart" "$work/triton.$rate" 3
stop_triton
for _ in $(seq 100); do kill -0 -- "-$triton" 2>/dev/null || break; sleep 0.2; done
! kill -0 -- "-$triton" 2>/dev/null || fail "Triton did not stop" "$work/triton.log"
triton=
kill "$server" && wait "$server"
server=
echo "all checks passed"
