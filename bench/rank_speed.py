"""How much two ranks lose to each other: images per second of one rank, of two that train together in exact and in fast mode, and of
two that never talk (two runs at the same time), with PyTorch DDP over Gloo beside them; rounds in turns, medians.

  python3 bench/rank_speed.py --data DATASET [--model nfnet_f0 --size 96 --batch 8 --steps 8] [--rounds 3]
      [--ddp 'PEERS_PYTHON train_peers.py one --ranks 2 --threads 1 --model dm_nfnet_f0 --res 96 --batch 8 --steps 6']

--batch is of a rank. Every process is one thread, bound to a core of its own. Share of CPU that the exchange takes: from the
spans of a profiled step.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def command(a, folder, ranks, reduction):
    sets = {"data.path": a.data, "data.image_size": a.size, "data.workers": 0 if a.no_workers else 1, "model.name": a.model,
            "batch.size": a.batch * ranks, "batch.micro_batches": ranks, "run.threads_per_rank": 1, "optimizer.learning_rate": 0.01,
            "limit.steps": a.steps, "schedule.epochs": 1000, "checkpoint.every_steps": 0, "checkpoint.every_minutes": 0,
            "log.tensorboard": "false", "log.every_steps": 1, "evaluate.every_steps": 0, "comm.reduction": reduction}
    argv = [ROOT + "/build/bin/nf-train", "--config", "/dev/null", "--output", folder]
    for k, v in sets.items():
        argv += ["--set", f"{k}={v}"]
    return argv


def speed(folder):
    lines = [json.loads(line) for line in open(folder + "/metrics.jsonl")]
    return statistics.median(line["images_per_second"] for line in lines if line["kind"] == "train" and line["step"] > 2)


def run(argvs):
    jobs = [subprocess.Popen(argv, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for argv in argvs]
    for job in jobs:
        _, err = job.communicate()
        if job.returncode != 0:
            raise SystemExit(err.decode())


def ours(a, kind):
    with tempfile.TemporaryDirectory() as folder:
        if kind == "one":
            run([["taskset", "-c", "0"] + command(a, folder + "/r", 1, "exact")])
            return speed(folder + "/r")
        if kind == "apart":
            run([["taskset", "-c", str(i)] + command(a, f"{folder}/{i}", 1, "exact") for i in range(2)])
            return speed(folder + "/0") + speed(folder + "/1")
        run([["mpirun", "-np", "2", "--bind-to", "core"] + command(a, folder + "/r", 2, kind)])
        return speed(folder + "/r")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--model", default="nfnet_f0")
    p.add_argument("--size", type=int, default=96)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--no-workers", action="store_true", help="the training thread loads its images itself")
    p.add_argument("--ddp", default="", help="command of the peer; a JSON line with images_per_s; --mode ddp or solo is added")
    a = p.parse_args()
    results = {}
    for _ in range(a.rounds):
        for kind in ("one", "apart", "exact", "fast"):
            results.setdefault(kind, []).append(ours(a, kind))
        if a.ddp:
            for mode in ("ddp", "solo"):
                out = subprocess.run(shlex.split(a.ddp) + ["--mode", mode], check=True, stdout=subprocess.PIPE, text=True).stdout
                results.setdefault("torch_" + mode, []).append(json.loads(out.strip().splitlines()[-1])["images_per_s"])
    median = {k: statistics.median(v) for k, v in results.items()}
    ratios = [e / x for e, x in zip(results["exact"], results["apart"])]
    exact_fast = [e / x for e, x in zip(results["exact"], results["fast"])]
    print(json.dumps({"images_per_s": median, "rounds": results, "exact_over_apart": statistics.median(ratios),
                      "exact_over_fast": statistics.median(exact_fast)}))


if __name__ == "__main__":
    main()
