#!/usr/bin/env python3
"""Our training step beside timm's on PyTorch: build/bench/step_speed and bench/step_peer.py in turns, each in its own process with
the same threads, random images, R rounds. Prints medians, and the ratio of ours to each peer round by round: median (lowest to
highest). Beside other work the ratio of CPU times says more than that of wall times. Parameter counts must be equal.

  .deps/peers/bin/python bench/step_versus.py [--rounds 5] [--threads 2] [--case nfnet_nano:32:128:30 --case nfnet_f0:192:8:4]
      [--peers eager,compile,eager-nhwc] [--compute bfloat16] [--optim] [--json FILE]
  ./dev bench step_versus                                           # the same with the interpreter of ./dev setup --peers

A case is net:pixels:batch:steps. A peer: eager or compile, -nhwc for channels_last; ours-nhwc: ours
in NHWC on a GPU. Numbers of timm's small nets: bench/step_peer.py.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS_PYTHON = os.path.join(ROOT, ".deps/peers/bin/python")
SMALL = ("nfnet_pico", "nfnet_nano", "nfnet_micro", "nfnet_mini")  # 10 classes, others 1000


def last_json(command, threads):
    """Runs it and reads the JSON object on its last line."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise SystemExit(f"error: {command[0]}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(name, shape, python=PEERS_PYTHON):
    """One run of timm. shape: the options that both programs know."""
    kind, _, layout = name.partition("-")
    if kind not in ("eager", "compile") or layout not in ("", "nhwc"):
        raise SystemExit(f"error: --peers: unknown peer '{name}'\nhint: eager, compile, eager-nhwc, compile-nhwc, ours-nhwc")
    command = [python, ROOT + "/bench/step_peer.py", "--classes", 10 if shape["model"] in SMALL else 1000]
    if kind == "compile":
        command.append("--compile")
    if layout:
        command += ["--layout", layout]
    return last_json(command + flags(shape), shape["threads"])


def ours(shape, build, *options):
    command = [build + "/bench/step_speed", shape["mode"], "--json", *options]
    return last_json(command + flags({k: v for k, v in shape.items() if k != "mode"}), shape["threads"])


def flags(shape):
    return [part for key, value in shape.items() for part in ("--" + key.replace("_", "-"), value)]


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def value(result):
    return f"{result['images_per_s']:.2f} images/s" if "images_per_s" in result else f"{result['optim']['ms']:.3f} ms"


def in_turns(shape, names, rounds, build, python):
    """name -> results of its rounds; "ours" first."""
    results = {"ours": [], **{name: [] for name in names}}
    for i in range(rounds):
        results["ours"].append(ours(shape, build))
        for name in names:
            results[name].append(ours(shape, build, "--nhwc") if name == "ours-nhwc" else peer(name, shape, python))
        counts = {name: r[-1]["parameters"] for name, r in results.items()}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"error: {shape['model']}: other numbers of parameters: {counts}")
        last = ", ".join(f"{name} {value(r[-1])}" for name, r in results.items())
        print(f"# {shape['model']}, round {i + 1} of {rounds}: {last}", file=sys.stderr, flush=True)
    return results


def print_steps(shape, results):
    print(f"\n{shape['model']}, {shape['size']} px, batch {shape['batch']}, {shape['compute']}, {shape['threads']} threads, "
          f"{results['ours'][0]['parameters']:,} parameters\n")
    print("| step | images/s | forward ms | backward ms | update ms | CPU ms | peak MiB | ours / it, by round | its CPU time / ours |\n"
          "|---|---|---|---|---|---|---|---|---|")
    own, own_cpu = [r["images_per_s"] for r in results["ours"]], [r["ms"]["cpu"] for r in results["ours"]]
    for name, runs in results.items():
        parts = [f"{statistics.median(r['ms'][part] for r in runs):.1f}" for part in ("forward", "backward", "update", "cpu")]
        ratio = " | "
        if name != "ours":
            ratio = (spread([a / r["images_per_s"] for a, r in zip(own, runs)]) + " | "
                     + spread([r["ms"]["cpu"] / a for a, r in zip(own_cpu, runs)]))
        print(f"| {name} | {spread([r['images_per_s'] for r in runs])} | {' | '.join(parts)} | "
              f"{statistics.median(r['peak_mib'] for r in runs):.0f} | {ratio} |", flush=True)
    print(f"\nMFU of ours {statistics.median(r['mfu'] for r in results['ours']):.3f} of "
          f"{statistics.median(r['matmul_gflops'] for r in results['ours']):.0f} GFLOP/s", flush=True)


def print_updates(shape, results):
    own = [r["optim"]["ms"] for r in results["ours"]]
    eager = [r["optim"]["ms"] for r in results["eager"]]
    share = [r["optim"]["of_bandwidth"] for r in results["ours"]]
    print(f"\nAGC, SGD and average of {shape['model']} alone, {shape['threads']} threads: ours {spread(own)} ms, timm and foreach "
          f"{spread(eager)} ms; theirs / ours by round {spread([b / a for a, b in zip(own, eager)])}; ours at {spread(share)} of the "
          "bandwidth", flush=True)


def parse_case(text):
    parts = text.split(":")
    if len(parts) != 4 or not all(p.isdigit() for p in parts[1:]):
        raise argparse.ArgumentTypeError("a case is net:pixels:batch:steps")
    return dict(zip(("model", "size", "batch", "steps"), [parts[0], *map(int, parts[1:])]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--case", action="append", type=parse_case, help="may be repeated")
    p.add_argument("--peers", default="eager,compile")
    p.add_argument("--compute", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--warm", type=int, default=3, help="steps that are not counted, of each run")
    p.add_argument("--optim", action="store_true", help="the update alone too, beside timm's AGC, foreach SGD and foreach average")
    p.add_argument("--python", default=PEERS_PYTHON, help="an interpreter with torch and timm")
    p.add_argument("--build", default=ROOT + "/build")
    p.add_argument("--json", help="every result into this file")
    p.add_argument("--parameters", action="store_true", help="compare the numbers of parameters and stop")
    a = p.parse_args()
    if a.rounds < 1:
        p.error("--rounds: at least 1")
    if "ours-nhwc" in a.peers.split(",") and a.device == "cpu":
        p.error("--peers: ours-nhwc needs --device cuda: on the CPU ours is in NHWC")
    everything = []
    for case in a.case or [parse_case("nfnet_nano:32:128:30"), parse_case("nfnet_f0:192:8:5")]:
        shape = {"mode": "step", **case, "compute": a.compute, "device": a.device, "threads": a.threads, "warm": a.warm}
        if a.parameters:
            shape.update(mode="optim", steps=1)
            mine, theirs = ours(shape, a.build)["parameters"], peer("eager", {**shape, "mode": "count"}, a.python)["parameters"]
            print(f"{case['model']}: {mine} and {theirs} parameters")
            if mine != theirs:
                raise SystemExit(1)
            continue
        steps = in_turns(shape, a.peers.split(","), a.rounds, a.build, a.python)
        print_steps(shape, steps)
        updates = {}
        if a.optim:
            updates = in_turns({**shape, "mode": "optim", "steps": max(20, shape["steps"])}, ["eager"], a.rounds, a.build, a.python)
            print_updates(shape, updates)
        everything.append({"shape": shape, "step": steps, "optim": updates})
    if a.json:
        with open(a.json, "w") as out:
            json.dump(everything, out, indent=1)


if __name__ == "__main__":
    main()
