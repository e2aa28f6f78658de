"""Images per second of a training step, nf-train and timm on PyTorch in the same run: same net, size, batch and threads,
rounds interleaved, median of the rounds. nf-train trains on real images through its loader; timm's images are in memory. For the
step alone, without a data set, see bench/step_versus.py.

  python bench/train_speed.py --python PEERS_PYTHON --imagenet DATASET --cifar DATASET [--rounds 3]

PEERS_PYTHON: an interpreter with torch 2.11.0 and timm 1.0.31 (./dev setup --peers makes one under .deps/peers).
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

from step_versus import peer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = [  # model, size, batch, steps, data, crop
    ("nfnet_nano", 32, 128, 30, "cifar", "random_padded"),
    ("nfnet_f0", 224, 8, 5, "imagenet", "random_resized"),
]


def ours(case, data, threads):
    model, size, batch, steps, _, crop = case
    with tempfile.TemporaryDirectory() as out:
        config = os.path.join(out, "empty.toml")
        open(config, "w").close()
        sets = {"data.path": data, "data.image_size": size, "data.crop": crop, "data.workers": 1, "model.name": model, "batch.size": batch,
                "batch.micro_batches": 1, "run.threads_per_rank": threads, "optimizer.learning_rate": 0.01, "limit.steps": steps,
                "checkpoint.every_steps": 0, "log.tensorboard": "false"}
        cmd = [ROOT + "/build/bin/nf-train", "--config", config, "--output", out + "/run"]
        for k, v in sets.items():
            cmd += ["--set", f"{k}={v}"]
        subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [json.loads(l) for l in open(out + "/run/metrics.jsonl")]
    train = [l for l in lines if l["kind"] == "train"][2:]  # the first steps pay for allocations
    return (statistics.median(l["images_per_second"] for l in train), statistics.median(l["data_wait_fraction"] for l in train),
            statistics.median(l["mfu"] for l in train))


def theirs_of(case, python, threads):
    model, size, batch, steps, _, _ = case
    shape = {"mode": "step", "model": model, "size": size, "batch": batch, "steps": steps, "threads": threads}
    return peer("eager", shape, python)["images_per_s"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", required=True)
    p.add_argument("--imagenet", required=True)
    p.add_argument("--cifar", required=True)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    print("| net | px | batch | threads | nf-train img/s | data wait | MFU | timm img/s | ratio, median of rounds (min-max) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        mine, theirs, wait, mfu = [], [], [], []
        for _ in range(a.rounds):
            speed, w, m = ours(case, a.imagenet if case[4] == "imagenet" else a.cifar, a.threads)
            mine.append(speed)
            wait.append(w)
            mfu.append(m)
            theirs.append(theirs_of(case, a.python, a.threads))
        ratio = sorted(x / y for x, y in zip(mine, theirs))
        med = statistics.median
        print(f"| {case[0]} | {case[1]} | {case[2]} | {a.threads} | {med(mine):.2f} | {med(wait):.3f} | {med(mfu):.2f} | {med(theirs):.2f} | "
              f"{med(ratio):.2f} ({ratio[0]:.2f}-{ratio[-1]:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
