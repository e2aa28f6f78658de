"""Weights exchanged with timm, both ways, and logits compared.

What timm wrote, imported here, gives timm's logits; what nf-export wrote of a trained checkpoint
loads into timm with strict=True and gives ours. Images are those that nf-eval --save-tensors says the
network saw. Layers of optimizer.layer_decay are those of timm's param_groups_layer_decay.

usage: timm_exchange.py --build BUILD nfnet_f0 | nfnet_micro
"""
import argparse
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import ScaledStdConv2dSame
from timm.models.nfnet import NfCfg, NormFreeNet, model_cfgs
from timm.optim import param_groups_layer_decay

CLASSES = 10
TOLERANCE = 1e-4  # of the largest logit
conv_same = partial(ScaledStdConv2dSame, eps=1e-5)


def small_net(depths, channels, stem, stem_strides, stage_strides, group):
    """timm's own modules in the shape of our small nets, whose stem and strides timm has no words for."""
    cfg = NfCfg(depths=depths, channels=channels, stem_type='deep_quad', stem_chs=stem[-1],
                group_size=group, bottle_ratio=0.5, extra_conv=True, gamma_in_act=True,
                same_padding=True, skipinit=True, num_features=2 * channels[-1], act_layer='gelu',
                attn_layer='se', attn_kwargs=dict(rd_ratio=0.5))
    net = NormFreeNet(cfg, num_classes=CLASSES)
    before = 3
    for i, (width, stride) in enumerate(zip(stem, stem_strides)):
        setattr(net.stem, f'conv{i + 1}', conv_same(before, width, 3, stride=stride))
        before = width
    for stage, stride in zip(net.stages, stage_strides):
        if stride == 1 and stage[0].conv2.stride != (1, 1):
            mid = stage[0].conv2.out_channels
            stage[0].conv2 = conv_same(mid, mid, 3, stride=1, groups=mid // group)
            stage[0].downsample.pool = torch.nn.Identity()
    return net


def timm_net(name):
    if name == 'nfnet_f0':
        return NormFreeNet(model_cfgs['dm_nfnet_f0'], num_classes=CLASSES)
    return small_net((1, 2, 6, 3), (64, 128, 192, 256), (16, 16, 16, 32), (1, 2, 1, 1),
                     (1, 2, 1, 2), 16)


def randomize(net):
    """Numbers in every parameter: a fresh net's skip gains of zero would hide the branches."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith('skipinit_gain'):
                p.uniform_(0.2, 1.0)
            elif name.endswith(('.gain', '.bias')):
                p.add_(0.1 * torch.randn_like(p))
            elif name == 'head.fc.weight':
                p.normal_(0, 0.05)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stderr}")
    return done.stdout


def difference(net, tensors):
    """Largest difference of timm's logits from the saved ones, as a part of the largest logit."""
    saved = load_file(tensors)
    with torch.no_grad():
        logits = net.eval()(saved['images'])
    assert saved['logits'].std() > 1e-3, 'the logits say nothing'
    return ((logits - saved['logits']).abs().max() / saved['logits'].abs().max()).item()


def check(holds, text):
    print(('ok   ' if holds else 'FAIL ') + text, flush=True)
    if not holds:
        raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--build', type=Path, required=True)
    parser.add_argument('name', choices=['nfnet_f0', 'nfnet_micro'])
    args = parser.parse_args()
    torch.set_num_threads(2)
    program = args.build / 'bin'
    size = 192 if args.name == 'nfnet_f0' else 32
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run(args.build / 'bench/draw_images', '--output', scratch / 'images', '--per-class', 2,
            '--size', size)
        run(program / 'nf-pack', '--input', scratch / 'images', '--output', scratch / 'data',
            '--split', 'train')

        def evaluate(weights, flavour, *more):
            run(program / 'nf-eval', '--weights', weights, '--data', scratch / 'data', '--split',
                'train', '--image-size', size, '--flavour', flavour, '--save-tensors',
                scratch / 't.safetensors', '--save-count', 8, '--batch', 4, *more)
            return scratch / 't.safetensors'

        net = timm_net(args.name)
        randomize(net)
        save_file(net.state_dict(), scratch / 'timm.safetensors')
        apart = difference(net, evaluate(scratch / 'timm.safetensors', 'timm', '--model', args.name))
        check(apart < TOLERANCE, f'{args.name} written by timm, read here: logits differ by {apart:.1e}')

        for flavour in ('timm', 'dm'):
            config = scratch / f'{flavour}.toml'
            config.write_text(f'''
[data]
path = "{scratch / 'data'}"
image_size = {size // 2}
crop = "random_padded"
[model]
name = "{args.name}"
flavour = "{flavour}"
[batch]
size = 4
micro_batches = 1
[schedule]
epochs = 1
warmup_epochs = 0
[optimizer]
learning_rate = 0.1
[init]
weights = "{scratch / 'timm.safetensors'}"
[limit]
steps = 2
''')
            run(program / 'nf-train', '--config', config, '--output', scratch / flavour)
            checkpoint, exported = scratch / flavour / 'checkpoints/latest', scratch / 'ours.safetensors'
            run(program / 'nf-export', '--checkpoint', checkpoint, '--output', exported)
            with safe_open(exported, 'pt') as file:
                check(file.metadata()['flavour'] == flavour, f'the header says {flavour}')
            again = timm_net(args.name)
            again.load_state_dict(load_file(exported), strict=True)
            moved = max((a - b).abs().max().item() for a, b in zip(again.parameters(), net.parameters()))
            check(moved > 1e-4, f'two updates moved the weights by up to {moved:.1e}')
            apart = difference(again, evaluate(checkpoint, flavour))
            if flavour == 'timm':
                check(apart < TOLERANCE,
                      f'{args.name} exported, loaded strictly by timm: logits differ by {apart:.1e}')
            else:  # DeepMind's numerics are not timm's: near, and not the same
                check(1e-5 < apart < 0.3,
                      f'{args.name} of flavour dm, loaded strictly: logits differ by {apart:.1e}')

        groups = {}
        for group in param_groups_layer_decay(net, layer_decay=0.5):
            for p in group['params']:
                groups[id(p)] = group['lr_scale']
        blocks = [f'stages.{s}.{b}.' for s, stage in enumerate(net.stages) for b in range(len(stage))]
        last = len(blocks) + 1
        for name, p in net.named_parameters():
            layer = next((1 + i for i, b in enumerate(blocks) if name.startswith(b)),
                         0 if name.startswith('stem') else last - 1 if name.startswith('final') else last)
            assert groups[id(p)] == 0.5 ** (last - layer), name
        check(True, f'{last + 1} layers are those of timm\'s layer decay')


if __name__ == '__main__':
    main()
