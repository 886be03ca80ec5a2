#!/usr/bin/env bash
# What needs a GPU, in one command of less than ten minutes, without a network.
#
#   benchmarks/gpu.sh DATA [OUTPUT]
#
#   DATA    a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, such as Imagenette
#   OUTPUT  where everything is written                       (default $OUT, else runs/gpu)
#
#   PYTHON               with bottlefit-jax[train] and torch  (default .venv/bin/python, else python3)
#   RUNS                 workdirs of the trainings            (default OUTPUT/runs)
#   SECONDS_IN_ALL       what it may take                     (default 570)
#   BOTTLEFIT_ALLOW_CPU  1: try the command without a GPU, everything shrunk; the numbers mean nothing
#
# First stage 1 of ResNet-152 against PyTorch (train_step.json), then configs/imagenette_full.py for ResNet-50 and
# DenseNet-169 (MODEL.md, reports.json). What does not fit into the time is cut; the summary says so, and the same
# command with the same OUTPUT goes on with the trainings. Exit codes: 0 all of it ran; 1 something was cut or failed;
# 2 something is missing.
set -uo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
began=$(date +%s)
mistake() { echo "error: $1" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for split in train val; do
  [ -d "$1/$split" ] || mistake "$1 has no folder $split; DATA must hold train/CLASS/*.jpg and val/CLASS/*.jpg"
done
data=$(cd "$1" && pwd)
output=${2:-${OUT:-$here/runs/gpu}}
mkdir -p "$output" || mistake "cannot write $output"
output=$(cd "$output" && pwd)
runs=${RUNS:-$output/runs}
mkdir -p "$runs" || mistake "cannot write $runs"
runs=$(cd "$runs" && pwd)
python=${PYTHON:-$([ -x "$here/.venv/bin/python" ] && echo "$here/.venv/bin/python" || echo python3)}
budget=${SECONDS_IN_ALL:-570}
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false            # JAX and PyTorch are in one process
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}  # PyTorch takes one GPU
cd "$here" || exit 2

# One line on what is missing, or the device.
device=$("$python" - 2> "$runs/check.log" <<'X'
import importlib.util
import os
import sys

WANTED = {  # module -> distribution
    "absl": "absl-py", "array_record": "array-record", "cv2": "opencv-python-headless", "flax": "flax", "grain": "grain",
    "jax": "jax", "matplotlib": "matplotlib", "ml_collections": "ml-collections", "optax": "optax",
    "orbax": "orbax-checkpoint", "PIL": "pillow", "scipy": "scipy", "simplejpeg": "simplejpeg",
    "tensorboardX": "tensorboardX", "torch": "torch",
    "tqdm": "tqdm",
}  # fmt: skip
missing = [name for module, name in WANTED.items() if importlib.util.find_spec(module) is None]
if missing:
    sys.exit(print(f"this Python lacks {', '.join(missing)}: {sys.executable}") or 2)
try:
    import jax

    import benchmarks.torch_train_step
    import bottlefit_jax.cli.config_command
    import bottlefit_jax.experiment.run
except ImportError as error:  # a module that one of the above needs, or another version of it
    sys.exit(print(f"this Python cannot import what is needed: {error} ({sys.executable})") or 2)
try:
    device = jax.devices()[0]
except RuntimeError as error:
    sys.exit(print(f"JAX cannot start: {' '.join(str(error).split())}") or 2)
if device.platform != "gpu" and os.environ.get("BOTTLEFIT_ALLOW_CPU") != "1":
    sys.exit(print("JAX sees no GPU; BOTTLEFIT_ALLOW_CPU=1 tries the command on the CPU, everything shrunk") or 2)
print(f"{device.device_kind}, JAX {jax.__version__}, PyTorch {benchmarks.torch_train_step.torch.__version__}")
X
) || mistake "${device:-the check of the Python failed, see $runs/check.log}"
echo "$device"

step=(--model resnet152 --size 224 --batch 128 --dtype bfloat16 --torch compiled --steps 20 --rounds 7 --epochs 0)
shrunk=()
if [ "${BOTTLEFIT_ALLOW_CPU:-}" = 1 ]; then
  step=(--model resnet18 --size 32 --batch 4 --dtype bfloat16 --torch eager --steps 1 --rounds 1 --epochs 0)
  shrunk=(--config.dataset.image_size=32 --config.dataset.workers=2 --config.eval_batch_size=4)
  for stage in teacher stage1 stage2; do shrunk+=("--config.stages.$stage.epochs=1" "--config.stages.$stage.batch_size=4"); done
  shrunk+=(--config.stages.teacher.warmup_epochs=0)
fi

# take SHARE NAME COMMAND...: runs it with so many percent of what is left; output in NAME.log, how it ended in NAME.end
left() { echo $((budget - ($(date +%s) - began))); }
take() {
  local share=$1 name=$2 code seconds start
  shift 2
  seconds=$((($(left) - 10) * share / 100))  # 10 s: the summary, and the 25 s in which what is stopped saves
  start=$(date +%s)
  if [ "$seconds" -lt 10 ]; then
    echo "not begun: no time was left" > "$runs/$name.end"
  else
    timeout --foreground --kill-after=25 "$((seconds > 60 ? seconds - 25 : seconds))" "$@" > "$output/$name.log" 2>&1
    code=$?
    case $code in
      0) echo "done in $(($(date +%s) - start)) s" ;;
      124 | 130 | 137 | 143) echo "cut after $(($(date +%s) - start)) s" ;;
      *) echo "failed with exit code $code: $(grep -v '^ *$' "$output/$name.log" | tail -1)" ;;
    esac > "$runs/$name.end"
  fi
  echo "$name: $(cat "$runs/$name.end")"
}

rm -f "$runs"/*.end "$output/train_step.json"
take 50 train_step "$python" -m benchmarks.train_step "${step[@]}" --json "$output/train_step.json"
share=50
for model in resnet50 densenet169; do
  take "$share" "$model" "$python" -m bottlefit_jax.main --config=configs/imagenette_full.py:"$model" \
    --workdir="$runs/$model" --config.dataset.root="$data" ${shrunk[@]+"${shrunk[@]}"}
  [ ! -f "$runs/$model/report.md" ] || cp "$runs/$model/report.md" "$output/$model.md"
  share=100
done
"$python" -m benchmarks.gpu_summary "$output" "$runs" "$device" | tee "$output/summary.md"
exit "${PIPESTATUS[0]}"
