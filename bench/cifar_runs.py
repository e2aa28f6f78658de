"""What experiments on CIFAR-10 share: its images, data sets packed from them, and runs that are trained once."""
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CIFAR10 = ROOT.parent / 'shared/data/cifar10_jpeg.tar'


def run(log, *command):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT='1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1')
    with open(log, 'w') as out:
        code = subprocess.run([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT,
                              env=env).returncode
    if code != 0:
        sys.exit(f'error: {" ".join(map(str, command))}\nexit {code}; see {log}')


class CifarRuns:
    """Everything lies in `folder`; killed, the same calls go on from there."""

    def __init__(self, archive, build, folder, ranks):
        if not archive.exists():
            sys.exit(f'error: {archive} is not there\nhint: --data names an archive train/CLASS/*.jpg, test/CLASS/*.jpg')
        self.archive, self.bin, self.folder, self.ranks = archive, build / 'bin', folder, ranks
        self.folder.mkdir(parents=True, exist_ok=True)

    def extract(self):
        """The archive's images as files, and their names by split and class."""
        images = self.folder / 'images'
        if not (images / 'done').exists():
            with tarfile.open(self.archive) as tar:
                tar.extractall(images)
            (images / 'done').touch()
        self.files = {split: {c.name: sorted(c.iterdir()) for c in sorted((images / split).iterdir())}
                      for split in ('train', 'test')}

    def pack(self, name, splits):
        """A data set of splits {name: [(file, class)]}."""
        target = self.folder / name
        for split, rows in splits.items():
            if (target / f'{split}.packed').exists():
                continue
            table = self.folder / f'{name}.{split}.tsv'
            table.write_text(''.join(f'{file.resolve()}\t{label}\n' for file, label in rows))
            run(self.folder / f'{name}.{split}.log', self.bin / 'nf-pack', '--input', table, '--output',
                target, '--split', split, '--overwrite')
            (target / f'{split}.packed').touch()
        return target

    def train(self, name, config, **keys):
        """A finished run's result.json; trains where there is none."""
        run_dir = self.folder / 'runs' / name
        sets = [x for key, value in keys.items() for x in ('--set', f'{key.replace("__", ".")}={value}')]
        if not (run_dir / 'result.json').exists():
            run_dir.parent.mkdir(exist_ok=True)
            run(self.folder / 'runs' / f'{name}.log', 'mpirun', '--oversubscribe', '--bind-to', 'none',
                '-np', self.ranks, self.bin / 'nf-train', '--config', ROOT / 'configs' / config, '--output',
                run_dir, *sets)
        return run_dir, json.loads((run_dir / 'result.json').read_text())
