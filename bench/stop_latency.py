"""Seconds from a signal to a committed checkpoint, of a small net in an mpirun job, beside the job's own time for a step.

  python3 bench/stop_latency.py --data DATASET [--ranks 2] [--trials 10] [--signal USR1]

Each trial starts the job (it continues the run), sends the signal to mpirun at a random moment and reads when
checkpoints/latest was renamed. Prints one JSON line; seconds beyond one step are what the goal of 1 s is about.
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def slowest_step(run, batch):
    lines = [json.loads(line) for line in open(run + "/metrics.jsonl")]
    return max(batch / line["images_per_second"] for line in lines[-6:] if line["kind"] == "train")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--trials", type=int, default=10)
    p.add_argument("--signal", default="USR1")
    p.add_argument("--config", default=ROOT + "/configs/cifar10.toml")
    p.add_argument("--batch", type=int, default=128)
    a = p.parse_args()
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    number = getattr(signal, "SIG" + a.signal)
    committed, ended, steps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        run = folder + "/run"
        command = ["mpirun", "-np", str(a.ranks), "--bind-to", "none", ROOT + "/build/bin/nf-train", "--config", a.config, "--set",
                   "data.path=" + a.data, "--set", f"batch.size={a.batch}", "--set", "log.every_steps=1", "--set", "evaluate.every_steps=0",
                   "--set", "checkpoint.every_steps=0", "--set", "checkpoint.every_minutes=0", "--output", run]
        for _ in range(a.trials):
            size = os.path.getsize(run + "/metrics.jsonl") if os.path.exists(run + "/metrics.jsonl") else 0
            job = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (os.path.exists(run + "/metrics.jsonl") and os.path.getsize(run + "/metrics.jsonl") > size + 2000):
                time.sleep(0.05)
                assert job.poll() is None, "the job ended by itself"
            time.sleep(random.uniform(0, 1))
            sent = time.time()
            job.send_signal(number)
            assert job.wait() == 75
            ended.append(time.time() - sent)
            committed.append(os.stat(run + "/checkpoints/latest").st_mtime - sent)
            steps.append(slowest_step(run, a.batch))
    beyond = [c - s for c, s in zip(committed, steps)]
    print(json.dumps({"ranks": a.ranks, "signal": a.signal, "trials": a.trials, "commit_s": statistics.median(committed),
                      "commit_max_s": max(committed), "job_end_s": statistics.median(ended), "step_s": statistics.median(steps),
                      "beyond_a_step_s": statistics.median(beyond), "beyond_a_step_max_s": max(beyond)}))


if __name__ == "__main__":
    main()
