#!/usr/bin/env python3
"""The scaling study on real images, small: four nets, five epoch budgets, two learning rates a cell.

1. packs CIFAR-10's training images, 2,000 of them held out;
2. trains every cell of the sweep but the dearest, fits them, and writes down what the fit says of
   that one cell before it exists (before/prediction.json);
3. trains the dearest cell and makes the report (nf-fit) of all;
4. prices the published defect: the cells up to --defect-flops again, at the same learning rates, by
   a loader that starts at the head of its order after each preemption (forgetful_train);
5. writes the report, its tables and plots, and README.md into --report.

usage: bench/study.py [--data cifar10_jpeg.tar] [--output sweeps/cifar_small] [--report docs/study]
Killed, the same command goes on: nothing that is finished is trained again.
"""
import argparse
import collections
import csv
import json
import math
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT='1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
           OMP_NUM_THREADS='1')


def call(*command, quiet=False, **kwargs):
    words = [str(c) for c in command]
    done = subprocess.run(words, env=kwargs.pop('env', ENV), text=True,
                          stdout=subprocess.PIPE if quiet else None, **kwargs)
    if done.returncode != 0:
        sys.exit(f'error: {shlex.join(words)}\nexit {done.returncode}')
    return done.stdout


class Study:
    def __init__(self, args):
        self.a = args
        self.bin = args.build / 'bin'
        self.out = args.output.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.data = self.out / 'cifar10'
        with open(args.config, 'rb') as file:
            self.sweep = tomllib.load(file)

    def pack(self):
        if not (self.out / 'packed').exists():
            call(self.bin / 'nf-pack', '--input', self.a.data, '--output', self.data, '--split', 'train',
                 '--holdout', 2000, '--overwrite')
            (self.out / 'packed').touch()

    def nf_sweep(self, verb, *more, **kwargs):
        return call(self.bin / 'nf-sweep', verb, '--config', self.a.config, '--set', f'data.path={self.data}',
                    '--output', self.out / 'sweep', *[w for s in self.a.set for w in ('--set', s)], *more,
                    **kwargs)

    def fit(self, table, folder, *more):
        grid = self.sweep['lr']
        top = grid.get('max', grid['anchor'] * grid.get('factor', 2) ** 2)
        call(self.bin / 'nf-fit', '--input', table, '--output', folder, '--lr-anchor', grid['anchor'],
             '--lr-factor', grid.get('factor', 2), '--lr-cap', top, '--flops', *more, quiet=True)
        return json.loads((folder / 'fit.json').read_text())

    def predict_dearest(self):
        """All cells but one; the prediction of that one; then that one."""
        before = self.out / 'before'
        cells = json.loads(self.nf_sweep('plan', '--json', quiet=True))['cells']
        dearest = max(cells, key=lambda c: c['train_flops'])
        if not (before / 'prediction.json').exists():
            self.nf_sweep('run', '--set', f"limit.train_flops={dearest['train_flops'] * 0.9999}")
            before.mkdir(exist_ok=True)
            shutil.copy(self.out / 'sweep' / 'results.csv', before / 'results.csv')
            self.fit(before / 'results.csv', before)
            call(self.bin / 'nf-fit', 'predict', '--fit', before / 'fit.json', '--model',
                 f"{dearest['model']}={dearest['train_flops_per_image']}", '--epochs', dearest['epochs'],
                 '--output', before / 'prediction.json')
        self.nf_sweep('run')
        self.nf_sweep('collect', quiet=True)
        return dict(json.loads((before / 'prediction.json').read_text()), model=dearest['model'])

    # The defect.

    def lives(self, cell):
        """Positions of the preemptions: exponential times of work, eight in the dearest such cell."""
        draw = random.Random(f"{cell['model']} {cell['epochs']}")
        flops, at = 0.0, []
        while (flops := flops + draw.expovariate(8 / self.a.defect_flops)) < cell['train_flops']:
            step = int(flops / cell['size'] / self.sweep['batch'])
            if step > 0 and step * self.sweep['batch'] not in at:
                at.append(step * self.sweep['batch'])
        return at

    def forgetful(self, cell):
        """The cell's best run again, by the loader that forgets; its held-out loss and missed samples."""
        at = self.lives(cell)
        record = {'run': cell['run'], 'model': cell['model'], 'epochs': cell['epochs'],
                  'preemptions': len(at), 'loss': cell['loss'], 'forgetful_loss': cell['loss'], 'missed': 0}
        if not at:  # never preempted: the same run
            return record
        run_dir = self.out / 'defect' / cell['run']
        if not (run_dir / 'result.json').exists():
            with open(self.out / 'sweep' / 'runs' / cell['run'] / 'metrics.jsonl') as file:
                words = shlex.split(json.loads(file.readline())['command'])
            words[0], words[words.index('--output') + 1] = self.a.build / 'bench' / 'forgetful_train', run_dir
            run_dir.parent.mkdir(exist_ok=True)
            with open(f'{run_dir}.log', 'w') as log:
                call(*words, '--set', 'data.trace=true', stderr=log,
                     env=dict(ENV, FORGET_AT=','.join(map(str, at))))
        result = json.loads((run_dir / 'result.json').read_text())
        uses = collections.Counter(line.rsplit('\t', 1)[1] for line in open(run_dir / 'trace' / 'rank_00000.tsv'))
        most = math.ceil(cell['epochs'])
        record['missed'] = sum(uses.values()) - sum(min(n, most) for n in uses.values())
        record['forgetful_loss'] = result['heldout_loss']
        return record

    def price_defect(self, fit):
        cells = [c for c in fit['cells'] if c['train_flops'] <= self.a.defect_flops]
        with ThreadPoolExecutor(self.sweep['run']['parallel']) as pool:
            records = list(pool.map(self.forgetful, sorted(cells, key=lambda c: -c['train_flops'])))
        tables = {'ours': {}, 'forgetful': {r['run']: r for r in records}}
        rows = list(csv.DictReader(open(self.out / 'sweep' / 'results.csv')))
        chosen = {c['run'] for c in cells}
        spread = {}
        for name, changed in tables.items():
            folder = self.out / f'law_{name}'
            folder.mkdir(exist_ok=True)
            with open(folder / 'results.csv', 'w', newline='') as file:
                table = csv.DictWriter(file, rows[0].keys())
                table.writeheader()
                for row in rows:
                    if row['run'] in chosen:
                        if row['run'] in changed:
                            r = changed[row['run']]
                            row = dict(row, heldout_loss=r['forgetful_loss'], images_missed=r['missed'])
                        table.writerow(row)
            law = self.fit(folder / 'results.csv', folder, '--allow-missed', 1)
            p = law['law']['parameters']
            spread[name] = [math.log(c['loss'] / (p['E'] + p['A'] * c['size'] ** -p['alpha'] +
                                                  p['B'] * c['images'] ** -p['beta'])) for c in law['cells']]
        return records, spread

    # The page.

    def plot_defect(self, fit, records):
        """What the forgetful loader costs each run, with the number of its preemptions."""
        flops = {c['run']: c['train_flops'] for c in fit['cells']}
        rows = sorted((flops[r['run']], r['loss'], r['forgetful_loss'], r['preemptions'], r['run']) for r in records)
        target = self.a.report / 'defect.csv'
        target.write_text('train_flops,loss,forgetful_loss,preemptions,run\n' +
                          ''.join(','.join(map(str, row)) + '\n' for row in rows))
        if not shutil.which('gnuplot'):
            return print('warning: no gnuplot: defect.svg is not drawn', file=sys.stderr)
        subprocess.run(['gnuplot'], text=True, check=True, cwd=self.a.report, input='''
set terminal svg size 860,520 font "Helvetica,14" background "white"
set output "defect.svg"
set datafile separator ","
set logscale x
set format x "10^{%T}"
set grid lc rgb "#dddddd"
set xlabel "training compute, FLOP"
set ylabel "held-out loss above that of the same run, %"
set offsets graph 0.04, graph 0.04, graph 0.08, graph 0.05
set key off
set title "The published defect: a loader that forgets its place, and how often it was preempted"
plot 0 lc rgb "#666666" dt 2 notitle, \\
     "defect.csv" skip 1 using 1:(100*($3/$2-1)) with points pt 7 ps 0.9 lc rgb "#d55e00" title "runs", \\
     "" skip 1 using 1:($4>0 ? 100*($3/$2-1) : 1/0):4 with labels offset 1.4,0.6 textcolor rgb "#444444" title "preemptions"
''')

    def defect_lines(self, fit, records, spread):
        rms = {name: math.sqrt(statistics.fmean(r * r for r in rs)) for name, rs in spread.items()}
        hit = [r for r in records if r['preemptions']]
        worse = [math.log(r['forgetful_loss'] / r['loss']) for r in hit] or [0.0]
        return [
            '## The published defect, priced', '',
            f'The {len(records)} cells up to {self.a.defect_flops:.3g} FLOP again, at the learning rates found, by a loader that '
            'starts at the head of its order after each preemption and is otherwise the same run. Preemptions: exponential '
            f"times of work, {sum(r['preemptions'] for r in records)} in all; {len(hit)} cells had any.", '',
            '![the defect](defect.svg)', '',
            '| | nfscale | forgets its place |', '| --- | --- | --- |',
            f"| residual spread round its own law (rms of ln loss) | {rms['ours']:.4f} | {rms['forgetful']:.4f} |",
            f"| largest residual | {max(map(abs, spread['ours'])):.4f} | {max(map(abs, spread['forgetful'])):.4f} |",
            f"| samples' uses missed, share | 0 | {sum(r['missed'] for r in hit) / max(1, sum(r['epochs'] * fit['images_per_epoch'] for r in hit)):.3f} of the preempted runs |",
            f"| loss of the preempted cells, ratio to ours: median, worst | 1 | {math.exp(statistics.median(worse)):.4f}, {math.exp(max(worse)):.4f} |",
            '', f'Preempted runs end {statistics.median(worse):.1%} above their own loss (median), where cells scatter round the law by '
            f"{rms['ours']:.1%} (rms) and a held-out loss of 2,000 images has a standard error of about 1 to 2 %, which both sides share.",
            '', '| cell | preemptions | uses missed | loss | forgetful |', '| --- | --- | --- | --- | --- |',
            *[f"| {r['model']} at {r['epochs']:g} epochs | {r['preemptions']} | {r['missed']} | {r['loss']:.4f} | "
              f"{r['forgetful_loss']:.4f} |" for r in records],
            '', 'Rows with missed samples are refused by `nf-fit` (`--allow-missed`); the forgetful table was read with that off.']

    def write_page(self, fit, prediction, records, spread):
        report = self.a.report
        cell = next(c for c in fit['cells'] if c['model'] == prediction['model'] and
                    c['epochs'] == prediction['epochs'])
        off = abs(math.log(prediction['loss'] / cell['loss']))
        inside = prediction['lo90'] <= cell['loss'] <= prediction['hi90']
        law = fit['law']
        ci = law['ci95']

        def interval(name):
            return f'[{ci[name][0]:.3f}, {ci[name][1]:.3f}]' if ci.get(name) else '(no interval)'

        lines = [
            '# The scaling study on CIFAR-10', '',
            f"Made by `./dev bench study` (bench/study.py): {len({c['model'] for c in fit['cells']})} nets x "
            f"{len({c['epochs'] for c in fit['cells']})} epoch budgets, `two_trial`, {fit['input']['used']} finished runs, "
            f"{fit['images_per_epoch']:,.0f} training and 2,000 held-out JPEGs at {self.sweep['image_size']} px, batch {self.sweep['batch']}. "
            f"{fit['total_device_hours']:.2f} core-hours (whatever else ran on the machine counts in hours, not in losses; "
            'hence the axes in FLOP). The whole report: [report.html](report.html) (or [report.md](report.md)), the table: '
            '[results.csv](results.csv), every number: [fit.json](fit.json).', '',
            '![loss against compute](loss_vs_compute.svg)', '',
            f"Law: L = E + A / F^alpha + B / D^beta with alpha = {law['parameters']['alpha']:.3f} {interval('alpha')}, "
            f"beta = {law['parameters']['beta']:.3f} {interval('beta')}, E = {law['parameters']['E']:.3f} {interval('E')}; "
            f"best size grows with compute to the power {law['exponent_size']:.3f}, images with {law['exponent_images']:.3f}.",
            '', '![best epochs](best_epochs.svg)', '', '![best model size](best_size.svg)', '',
            '![best learning rate](learning_rate.svg)', '',
            '## The dearest cell, predicted before it was run', '',
            f"{prediction['model']} at {prediction['epochs']:g} epochs, from the {len(fit['cells']) - 1} cheaper cells: "
            f"predicted {prediction['loss']:.4f}, 90 % interval [{prediction['lo90']:.4f}, {prediction['hi90']:.4f}], "
            f"extrapolated by a factor {prediction['extrapolated_by']:.2f}. Measured: {cell['loss']:.4f}. "
            f"RMSLE {off:.4f}; it fell {'inside' if inside else '**outside**'} the interval.", '',
        ]
        if records:
            lines += self.defect_lines(fit, records, spread)
        (report / 'README.md').write_text('\n'.join(lines) + '\n')
        print(report / 'README.md')

    def run(self):
        self.pack()
        prediction = self.predict_dearest()
        self.a.report.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.out / 'sweep' / 'results.csv', self.a.report)
        shutil.copy(self.out / 'before' / 'prediction.json', self.a.report)
        fit = self.fit(self.a.report / 'results.csv', self.a.report)
        records, spread = [], {}
        if self.a.defect_flops > 0:
            records, spread = self.price_defect(fit)
            self.plot_defect(fit, records)
        self.write_page(fit, prediction, records, spread)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, default=ROOT.parent / 'shared/data/cifar10_jpeg.tar', help='images, as nf-pack takes them')
    p.add_argument('--output', type=Path, default=ROOT / 'sweeps/cifar_small')
    p.add_argument('--report', type=Path, default=ROOT / 'docs/study')
    p.add_argument('--config', type=Path, default=ROOT / 'configs/sweeps/cifar_small.toml')
    p.add_argument('--set', action='append', default=[], help='KEY=VALUE for nf-sweep')
    p.add_argument('--build', type=Path, default=ROOT / 'build')
    p.add_argument('--defect-flops', type=float, default=1.5e13, help='dearest cell that is trained again; 0: none')
    a = p.parse_args()
    if not a.data.exists():
        sys.exit(f'error: {a.data}: no such file\nhint: --data FOLDER_OR_TAR of images')
    if not a.config.exists():
        sys.exit(f'error: {a.config}: no such file\nhint: --config SWEEP.toml, see configs/sweeps/')
    if not (a.build / 'bin' / 'nf-sweep').exists() or not (a.build / 'bench' / 'forgetful_train').exists():
        sys.exit(f'error: {a.build}: nf-sweep and forgetful_train are not built there\nhint: ./dev bench study builds them')
    Study(a).run()


if __name__ == '__main__':
    main()
