"""The cost model of docs/scale.md: t = a + b x size for the exchange of gradients, a checkpoint and a batch of the loader, fitted to
half of the sizes measured here and checked on the other half; then the predicted efficiency of larger jobs.

  python3 bench/scale.py --data DATASET [--folder SCRATCH] [--rounds 15] [--output scale.json]

Prints Markdown. Programs: build/bench/reduce_speed (2 ranks through mpirun, messages and shared memory), save_speed, loader_speed.
"""
import argparse
import json
import math
import os
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20


def last_json(argv):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.strip().splitlines()[-1])


def fit(points):
    """a, b >= 0 of t = a + b x with the least sum of squared relative errors."""
    w = [1 / t**2 for _, t in points]
    s, sx, sxx = sum(w), sum(wi * x for wi, (x, _) in zip(w, points)), sum(wi * x * x for wi, (x, _) in zip(w, points))
    st, sxt = sum(wi * t for wi, (_, t) in zip(w, points)), sum(wi * x * t for wi, (x, t) in zip(w, points))
    b = (s * sxt - sx * st) / (s * sxx - sx * sx)
    a = (st - b * sx) / s
    return (0.0, sxt / sxx) if a < 0 else (a, b)


def row(name, unit, fitted, held_out):
    a, b = fit(fitted)
    errors = [abs(a + b * x - t) / t for x, t in held_out]
    sizes = lambda p: ", ".join(f"{x:g}" for x, _ in p)
    print(f"| {name} | {sizes(fitted)} | {1e3 * a:.3g} ms | {1e3 * b:.4g} ms | {sizes(held_out)} | "
          f"{100 * sum(errors) / len(errors):.1f} %, {100 * max(errors):.1f} % |", flush=True)
    return {"a_s": a, "b_s": b, "unit": unit, "mean_error": sum(errors) / len(errors), "max_error": max(errors)}


def measure(args):
    exchange, shared = {}, {}
    for mib in (2, 4, 8, 16, 32, 64, 128, 256):
        r = last_json(["mpirun", "-np", "2", "--bind-to", "none", ROOT + "/build/bench/reduce_speed", "--mib", str(mib), "--rounds",
                       str(args.rounds)])
        exchange[mib], shared[mib] = r["exact_messages"]["ms"] / 1e3, r["exact_shared"]["ms"] / 1e3
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        sizes = (8, 16, 32, 64, 128, 256, 512, 1024)
        saves = last_json([ROOT + "/build/bench/save_speed", "--folder", folder + "/x", "--mib", ",".join(map(str, sizes))])
    loader = {}
    for batch in (4, 8, 16, 32, 64, 128):
        r = last_json([ROOT + "/build/bench/loader_speed", "--data", args.data, "--batch", str(batch), "--threads", "1", "--seconds", "3"])
        loader[batch] = batch / r["images_per_s"]
    halves = lambda d: (sorted(d.items())[0::2], sorted(d.items())[1::2])
    print("| cost | sizes fitted | a | b | sizes held out | error there, mean and largest |\n|---|---|---|---|---|---|")
    model = {"exchange": row("exact sum, 2 ranks, messages (MiB of gradient)", "MiB", *halves(exchange)),
             "shared": row("exact sum, 2 ranks, shared memory (MiB)", "MiB", *halves(shared))}
    for key, name in (("copy_s", "checkpoint: the copy training waits for (MiB of state)"), ("save_s", "checkpoint: commit, in the background (MiB)"),
                      ("load_s", "checkpoint: load with checksums (MiB)")):
        model[key] = row(name, "MiB", *halves({s["mib"]: s[key] for s in saves}))
    model["loader"] = row("loader, one thread (images of a batch, 224 px)", "images", *halves(loader))
    return model


# Parameters in millions, training FLOPs of an image at 224 px, 600 classes (nf-train --dry-run).
NETS = (("nfnet_f0", 70.26, 5.692e10), ("nfnet_f3", 253.7, 2.0e11), ("nfnet_f7plus", 831.2, 6.671e11))
# The defaults of nf-train --fake-world: one H100 a rank, 400 Gbit/s each.
MACHINE = {"tflops": 989, "mfu": 0.4, "gbps": 400, "latency": 5e-6, "per_message": 1e-6}


def predict(net, ranks, batch, tflops, mfu, gbps, latency, per_message):
    """Seconds of compute and of exchange that is not hidden, of one step; the formula of nf-train --fake-world."""
    _, parameters, flops = net
    gradient = 4e6 * parameters
    buckets = math.ceil(parameters * 1e6 / min(1 << 22, max(1 << 16, parameters * 1e6 / 16)))
    compute = flops * batch / ranks / (tflops * 1e12 * mfu)
    if ranks == 1:
        return compute, 0.0
    moved = 2 * gradient * (ranks - 1) / ranks
    exchange = (2 * buckets + 1) * math.log2(ranks) * latency + 2 * buckets * (ranks - 1) * per_message + 8 * moved / (gbps * 1e9)
    return compute, max(0.0, exchange - 2 / 3 * compute)


def print_predictions(batch):
    print(f"\nPredicted efficiency, batch {batch}, one micro-batch a rank, {MACHINE}:\n")
    print("| ranks | " + " | ".join(n[0] for n in NETS) + " |\n|---|" + "---|" * len(NETS))
    for ranks in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        cells = []
        for net in NETS:
            compute, exposed = predict(net, ranks, batch, **MACHINE)
            cells.append(f"{100 * compute / (compute + exposed):.1f} % of {1e3 * (compute + exposed):.3g} ms")
        print(f"| {ranks} | " + " | ".join(cells) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="imagenet600", help="packed data set with images of 224 px or more")
    p.add_argument("--folder", default="/tmp", help="where checkpoints are written")
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--predict-only", action="store_true", help="measure nothing")
    p.add_argument("--output", help="JSON of the fitted model")
    args = p.parse_args()
    for batch in (4096, 65536):
        print_predictions(batch)
    if args.predict_only:
        return
    model = measure(args)
    if args.output:
        with open(args.output, "w") as f:
            json.dump(model, f, indent=1)


if __name__ == "__main__":
    main()
