#!/usr/bin/env python3
"""Does bfloat16 train as float32 does? CIFAR-10 with both, 8 seeds (3 tell too little), --jobs runs at a time.

After each epoch: held-out loss (mean over the seeds) with float32, how far its seeds spread, and the
difference that bfloat16 makes, seed by seed and in units of that spread. Exit 1 when after the last
epoch the mean difference is larger than the spread.

usage: bench/bf16_curve.py [--model nfnet_pico] [--seeds 8] [--epochs 10] [--jobs 2] [--output FOLDER]
Killed, the same command goes on: finished runs are kept.
"""
import argparse
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cifar_runs import CIFAR10, ROOT, CifarRuns

BATCH = 64
TYPES = ('float32', 'bfloat16')


class Curves(CifarRuns):
    def __init__(self, args):
        super().__init__(args.data, args.build, args.output, ranks=1)
        self.a = args

    def data(self):
        self.extract()
        return self.pack('cifar10', {split: [(file, label) for label, files in classes.items()
                                             for file in files[:self.a.per_class]]
                                     for split, classes in self.files.items()})

    def curve(self, data, compute, seed):
        """(loss, top-1) of the raw weights after each epoch, and after the last of the averaged ones."""
        samples = sum(min(self.a.per_class, len(f)) for f in self.files['train'].values())
        name = f'{compute}_{seed}'
        self.train(name, 'cifar10.toml', data__path=data, data__workers=1, model__name=self.a.model, run__seed=seed,
                   precision__compute=compute, schedule__epochs=self.a.epochs, batch__size=BATCH,
                   evaluate__every_steps=-(-samples // BATCH))
        lines = map(json.loads, open(self.folder / 'runs' / name / 'metrics.jsonl'))
        found = {}
        for line in lines:
            if line['kind'] == 'eval':
                found[line['weights'], line['step']] = (line['loss'], line['top1'])
        last = max(step for _, step in found)
        return [v for (weights, _), v in sorted(found.items()) if weights == 'raw'], found['ema', last]

    def table(self):
        data = self.data()
        jobs = [(c, s) for s in range(self.a.seeds) for c in TYPES]
        with ThreadPoolExecutor(self.a.jobs) as pool:
            curves = dict(zip(jobs, pool.map(lambda job: self.curve(data, *job), jobs)))
        print(f'{self.a.model}, CIFAR-10, {self.a.epochs:g} epochs, {self.a.seeds} seeds; held-out loss\n')
        print('| epoch | float32 | spread (sd) | bfloat16 less float32, each seed | mean | in spreads |')
        print('|---|---|---|---|---|---|')
        raw = {job: curve for job, (curve, _) in curves.items()}
        rows = [(str(i + 1), {job: curve[i] for job, curve in raw.items()}) for i in range(len(raw[jobs[0]]))]
        rows.append(('average of the weights', {job: ema for job, (_, ema) in curves.items()}))
        worst = 0.0
        for name, at in rows:
            plain = [at['float32', s][0] for s in range(self.a.seeds)]
            gaps = [at['bfloat16', s][0] - at['float32', s][0] for s in range(self.a.seeds)]
            spread, gap = statistics.stdev(plain), statistics.mean(gaps)
            worst = abs(gap) / spread
            print(f'| {name} | {statistics.mean(plain):.4f} | {spread:.4f} | '
                  f'{", ".join(f"{g:+.4f}" for g in gaps)} | {gap:+.4f} | {gap / spread:+.2f} |')
        for compute in TYPES:
            top1 = [100 * raw[compute, s][-1][1] for s in range(self.a.seeds)]
            print(f'{compute}: top-1 {", ".join(f"{t:.2f}" for t in top1)} %, mean {statistics.mean(top1):.2f} %')
        return worst


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, default=CIFAR10)
    p.add_argument('--build', type=Path, default=ROOT / 'build')
    p.add_argument('--output', type=Path, default=Path('bf16_curve'))
    p.add_argument('--model', default='nfnet_pico')
    p.add_argument('--seeds', type=int, default=8)
    p.add_argument('--epochs', type=float, default=10)
    p.add_argument('--jobs', type=int, default=2, help='runs at a time, a thread each')
    p.add_argument('--per-class', type=int, default=10**9, help='images of a class at most')
    a = p.parse_args()
    if a.seeds < 2:
        sys.exit('error: --seeds: a spread needs at least 2')
    sys.exit(1 if Curves(a).table() > 1 else 0)


if __name__ == '__main__':
    main()
