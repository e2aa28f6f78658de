"""One gradient sum over two ranks: ours and MPI_Allreduce (reduce_speed), and torch.distributed's Gloo, in turns.

  .deps/peers/bin/python bench/gloo_allreduce.py [--mib 64] [--rounds 5]      (./dev setup --peers first)

Each round starts two processes of each kind, on a core each, which sum --sums times after two for warm-up; the gradient is filled
anew before each sum. One JSON line: the median of the rounds' medians in ms, their range, and ratios to Gloo of the same round.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def gloo_rank(a):
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{a.port}", rank=a.rank, world_size=2)
    gradient = torch.empty(a.mib << 18)
    times = []
    for i in range(a.sums + 2):
        gradient.fill_(1.0)
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(gradient)
        if i >= 2:
            times.append(1e3 * (time.perf_counter() - begin))
        assert gradient[1] == 2
    dist.barrier()
    dist.destroy_process_group()
    if a.rank == 0:
        print(statistics.median(times))


def gloo(a, port):
    jobs = [subprocess.Popen(["taskset", "-c", str(r), sys.executable, __file__, "--rank", str(r), "--port", str(port), "--mib", str(a.mib),
                              "--sums", str(a.sums)], stdout=subprocess.PIPE, text=True,
                             env=dict(os.environ, GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")) for r in range(2)]
    outs = [job.communicate()[0] for job in jobs]
    if any(job.returncode for job in jobs):
        sys.exit("error: Gloo's ranks failed")
    return float(outs[0])


def ours(a):
    out = subprocess.run(["mpirun", "-np", "2", "--bind-to", "core", ROOT + "/build/bench/reduce_speed", "--mib", str(a.mib), "--rounds",
                          str(a.sums)], stdout=subprocess.PIPE, text=True, check=True,
                         env=dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")).stdout
    result = json.loads(out.strip().splitlines()[-1])
    return {k: result[k]["ms"] for k in ("exact_shared", "exact_messages", "mpi_allreduce")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mib", type=int, default=64)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--sums", type=int, default=15)
    p.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    p.add_argument("--port", type=int, default=29517, help="the first of --rounds TCP ports for Gloo")
    a = p.parse_args()
    if a.rank is not None:
        return gloo_rank(a)
    rounds = [dict(ours(a), gloo=gloo(a, a.port + i)) for i in range(a.rounds)]
    table = {k: {"ms": statistics.median(r[k] for r in rounds), "min": min(r[k] for r in rounds), "max": max(r[k] for r in rounds),
                 "gloo_over_this": statistics.median(r["gloo"] / r[k] for r in rounds)} for k in rounds[0]}
    print(json.dumps({"mib": a.mib, "rounds": a.rounds, **table}))


if __name__ == "__main__":
    main()
