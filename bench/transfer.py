#!/usr/bin/env python3
"""Does pretraining help, and does SAM? CIFAR-10 minus two classes, then those two with few labels.

For each seed: a net is pretrained on the eight other classes; then the two classes are learned from
--labels images each, starting from those weights (new head) or from random ones, with and without
SAM. Each arm may choose its learning rate of two, by 1,000 other training images of the two classes;
the table shows top-1 on their 2,000 test images, the test images being used once.

usage: bench/transfer.py [--data cifar10_jpeg.tar] [--smoke] [--seeds 3] [--output FOLDER]
Killed, the same command goes on: finished parts are kept.
"""
import argparse
import json
import random
import statistics
import time
from pathlib import Path

from cifar_runs import CIFAR10, ROOT, CifarRuns, run

NEW = ('cat', 'dog')  # the pair that CIFAR-10 nets confuse most
ARMS = [(start, sam) for start in ('random', 'pretrained') for sam in (0.0, 0.05)]


class Experiment(CifarRuns):
    def __init__(self, args):
        super().__init__(args.data, args.build, args.output, args.ranks)
        self.a = args

    def test(self, name, data):
        out = self.folder / 'runs' / f'{name}.test.json'
        if not out.exists():
            run(self.folder / 'runs' / f'{name}.test.log', self.bin / 'nf-eval', '--weights',
                self.folder / 'runs' / name, '--ema', '--data', data, '--split', 'test', '--image-size', 32,
                '--output', out)
        return json.loads(out.read_text())['top1']

    def few_labels(self, seed):
        """Training images of the new classes, others to choose the rate by, and the test images."""
        splits = {'train': [], 'holdout': [], 'test': []}
        for label in NEW:
            files = list(self.files['train'][label])
            random.Random(seed).shuffle(files)
            splits['train'] += [(f, label) for f in files[:self.a.labels]]
            splits['holdout'] += [(f, label) for f in files[-self.a.holdout:]]
            splits['test'] += [(f, label) for f in self.files['test'][label]]
        return self.pack(f'few{self.a.labels}_{seed}', splits)

    def pretrain(self, seed):
        old = [(f, label) for label, files in self.files['train'].items() if label not in NEW
               for f in files[:self.a.per_class]]
        data = self.pack('old', {'train': old})
        return self.train(f'pretrain_{seed}', 'finetune/cifar_pretrain.toml', data__path=data,
                          run__seed=seed, schedule__epochs=self.a.epochs)[0]

    def arm(self, seed, start, sam, weights, data):
        """Test top-1 and learning rate of the better of two runs."""
        best = None
        for rate in self.a.rates:
            name = f'{start}_sam{sam:g}_lr{rate:g}_seed{seed}'
            keys = dict(data__path=data, run__seed=seed, sam__rho=sam, optimizer__learning_rate=rate,
                        schedule__epochs=self.a.fine_epochs)
            if start == 'pretrained':
                keys.update(init__weights=weights, init__new_head='true', init__ema='true')
            result = self.train(name, 'finetune/cifar_few_labels.toml', **keys)[1]
            if best is None or result['heldout_top1_ema'] > best[0]:
                best = (result['heldout_top1_ema'], name, rate)
        return self.test(best[1], data), best[2]

    def table(self):
        rows = {arm: [] for arm in ARMS}
        begin = time.time()
        self.extract()
        for seed in range(self.a.seeds):
            weights, data = self.pretrain(seed), self.few_labels(seed)
            for start, sam in ARMS:
                rows[start, sam].append(self.arm(seed, start, sam, weights, data))
                print(f'{time.time() - begin:6.0f} s  seed {seed}  {start:10}  rho {sam:g}  '
                      f'top-1 {100 * rows[start, sam][-1][0]:.2f} %', flush=True)
        print(f'\n{", ".join(NEW)}: {self.a.labels} labelled images each; {self.a.seeds} seeds; top-1 %\n')
        print('| weights at the start | SAM rho | mean | spread (sd) | each seed | learning rates |')
        print('|---|---|---|---|---|---|')
        for (start, sam), found in rows.items():
            top1 = [100 * t for t, _ in found]
            sd = statistics.stdev(top1) if len(top1) > 1 else 0.0
            print(f'| {start} | {sam:g} | {statistics.mean(top1):.2f} | {sd:.2f} | '
                  f'{", ".join(f"{t:.2f}" for t in top1)} | {", ".join(f"{r:g}" for _, r in found)} |')
        record = [dict(start=s, rho=r, top1=[t for t, _ in found], rates=[x for _, x in found])
                  for (s, r), found in rows.items()]
        (self.folder / 'transfer.json').write_text(json.dumps(record, indent=2) + '\n')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, default=CIFAR10)
    p.add_argument('--build', type=Path, default=ROOT / 'build')
    p.add_argument('--output', type=Path, default=Path('transfer'))
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--labels', type=int, default=100, help='of each new class')
    p.add_argument('--ranks', type=int, default=2)
    p.add_argument('--smoke', action='store_true', help='a minute: all parts, figures of no meaning')
    a = p.parse_args()
    a.per_class, a.holdout, a.epochs, a.fine_epochs, a.rates = 5000, 500, 6, 60, (0.02, 0.1)
    if a.smoke:
        a.seeds, a.labels, a.per_class, a.holdout, a.epochs, a.fine_epochs = 1, 20, 40, 20, 1, 4
    Experiment(a).table()


if __name__ == '__main__':
    main()
