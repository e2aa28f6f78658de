#!/usr/bin/env bash
# The whole chain in a few minutes: draw or take images, pack, train on 2 ranks, kill -9 half-way, resume on another number
# of ranks, compare with a run that was never stopped, audit, evaluate, export, plot the loss. Called by ./dev demo.
set -euo pipefail

images="" out=demo
while [ $# -gt 0 ]; do
  case "$1" in
    --images) images=${2:?--images needs a folder or tar}; shift 2 ;;
    --output) out=${2:?--output needs a folder}; shift 2 ;;
    --help) echo "usage: ./dev demo [--images DIR|TAR] [--output DIR]   (images: one folder per class; default: drawn shapes)"; exit 0 ;;
    *) echo "error: dev demo: unknown option $1" >&2; echo "hint: ./dev demo --help" >&2; exit 2 ;;
  esac
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
bin=build/bin started=$SECONDS
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
ranks() { local n=$1; shift; mpirun --oversubscribe --bind-to none -np "$n" "$bin/nf-train" "$@"; }

rm -rf "$out"
mkdir -p "$out"
if [ -z "$images" ]; then
  step "1. draw 2,000 pictures of ten shapes"
  build/bench/draw_images --output "$out/images" --per-class 200
  images=$out/images
fi
if [ -d "$images" ]; then count=$(find -L "$images" -type f | wc -l); else count=$(tar tf "$images" | grep -vc '/$'); fi
holdout=$((count / 10 > 200 ? 200 : count / 10 > 0 ? count / 10 : 1))
step "2. pack $count files into HDF5 shards, $holdout images held out"
"$bin/nf-pack" --input "$images" --output "$out/dataset" --split train --holdout "$holdout" --shard-samples 512
config=(--config configs/demo.toml --set "data.path=$out/dataset")
# A small folder is shown more often, so that there is time to be killed.
[ "$count" -ge 2000 ] || config+=(--set "schedule.epochs=$((6 * 2000 / count))")

step "3. train on 2 ranks, never stopped"
ranks 2 "${config[@]}" --output "$out/undisturbed" >"$out/undisturbed.log"

half=$(($(grep -c '"kind":"train"' "$out/undisturbed/metrics.jsonl") / 2))
step "4. the same run, killed with -9 half-way (step $half) on 2 ranks, resumed on 3"
mpirun --oversubscribe --bind-to none -np 2 "$bin/nf-train" "${config[@]}" --output "$out/killed" >"$out/killed.log" 2>&1 &
launcher=$!
while ! grep -q "\"kind\":\"train\",\"step\":$half," "$out/killed/metrics.jsonl" 2>/dev/null; do
  kill -0 $launcher 2>/dev/null || { cat "$out/killed.log" >&2; echo "error: demo: the run ended before it could be killed" >&2; exit 1; }
  sleep 0.1
done
victim=$(cut -d' ' -f1 "/proc/$launcher/task/$launcher/children")  # mpirun's first rank
kill -9 "$victim"
wait $launcher || true
echo "killed rank process $victim after step $(grep -o '"train","step":[0-9]*' "$out/killed/metrics.jsonl" | tail -1 | cut -d: -f2)"
ranks 3 "${config[@]}" --output "$out/killed" >"$out/resumed.log"

step "5. same bits?"
last() { readlink -f "$1/checkpoints/$(cat "$1/checkpoints/latest")"; }
a=$(last "$out/undisturbed") b=$(last "$out/killed")
for f in model.safetensors optimizer.safetensors ema.safetensors state.json; do
  cmp "$a/$f" "$b/$f" && echo "identical: $f  $(sha256sum <"$b/$f" | cut -c1-16)"
done
"$bin/nf-audit" run "$out/killed"

step "6. evaluate and export"
"$bin/nf-eval" --weights "$b" --ema --data "$out/dataset" --split holdout
"$bin/nf-export" --checkpoint "$b" --output "$out/model.safetensors"

step "7. plot the loss"
grep '"kind":"train"' "$out/undisturbed/metrics.jsonl" | sed 's/.*"step":\([0-9]*\).*"loss":\([0-9.e+-]*\).*/\1 \2/' >"$out/undisturbed.dat"
grep '"kind":"train"' "$out/killed/metrics.jsonl" | sed 's/.*"step":\([0-9]*\).*"loss":\([0-9.e+-]*\).*/\1 \2/' >"$out/killed.dat"
if command -v gnuplot >/dev/null; then
  gnuplot <<EOF
set terminal svg size 820,420 font "Helvetica,13" background "white"
set output "$out/loss.svg"
set title "A run killed after step $half and resumed on 3 ranks, over one that was never stopped"
set xlabel "updates"
set ylabel "training loss (cross entropy, nats)"
set grid lc rgb "#dddddd"
set key top right
plot "$out/undisturbed.dat" with lines lw 6 lc rgb "#9ecae1" title "2 ranks, never stopped", \
     "$out/killed.dat" with lines lw 1.5 dashtype 2 lc rgb "#b2182b" title "2 ranks, kill -9, then 3 ranks"
EOF
  echo "$out/loss.svg"
else
  echo "gnuplot is not installed: the loss is in $out/*.dat"
fi
step "done in $((SECONDS - started)) s: everything is under $out/"
