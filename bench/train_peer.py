"""timm on PyTorch as the peer of nf-train: one training step (forward, cross entropy, backward, AGC 0.01 on all but the
head, SGD with Nesterov momentum), images held in memory. Prints one JSON line. Started by bench/train_speed.sh.

  python bench/train_peer.py --model nfnet_f0 --size 224 --batch 8 --threads 2 --steps 6
  python bench/train_peer.py --model nfnet_nano --check exported.safetensors      # strict load only

nfnet_nano, _micro, ...: timm's NormFreeNet with the same blocks, stem and strides patched to ours.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
import timm
from timm.models.nfnet import NfCfg, NormFreeNet
from timm.utils.agc import adaptive_clip_grad


# models/nfnet/spec.cpp, kSmall
SMALL = {
    "nfnet_pico": dict(depths=[1, 1, 1, 1], widths=[32, 32, 64, 64], stem=[4, 4, 8, 16], group_width=8),
    "nfnet_nano": dict(depths=[1, 1, 2, 1], widths=[32, 96, 128, 128], stem=[8, 16, 16, 16], group_width=16),
    "nfnet_micro": dict(depths=[1, 2, 6, 3], widths=[64, 128, 192, 256], stem=[16, 16, 16, 32], group_width=16),
    "nfnet_mini": dict(depths=[1, 2, 6, 3], widths=[128, 256, 384, 512], stem=[16, 16, 32, 64], group_width=32),
}
STEM_STRIDES, STAGE_STRIDES = (1, 2, 1, 1), (1, 2, 1, 2)


def small_net(spec, classes):
    """dm_nfnet's recipe (SE after the last conv, skip gain, SAME padding, gamma in the activation) at our small sizes."""
    widths = spec["widths"]
    cfg = NfCfg(depths=tuple(spec["depths"]), channels=tuple(widths), stem_type="deep_quad", stem_chs=widths[0] // 2,
                group_size=spec["group_width"], bottle_ratio=0.5, extra_conv=True, gamma_in_act=True, same_padding=True,
                skipinit=True, num_features=2 * widths[-1], act_layer="gelu", attn_layer="se", attn_kwargs=dict(rd_ratio=0.5))
    net = NormFreeNet(cfg, num_classes=classes)
    channels = [3] + spec["stem"]
    for i, stride in enumerate(STEM_STRIDES):
        old = getattr(net.stem, f"conv{i + 1}")
        setattr(net.stem, f"conv{i + 1}", type(old)(channels[i], channels[i + 1], 3, stride=stride, eps=old.eps))
    for i, stride in enumerate(STAGE_STRIDES):
        block = net.stages[i][0]
        block.conv2.stride = (stride, stride)
        if stride == 1:
            block.downsample.pool = torch.nn.Identity()
    return net


def make(name, classes):
    return small_net(SMALL[name], classes) if name in SMALL else timm.create_model("dm_" + name, num_classes=classes)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--classes", type=int, default=1000)
    p.add_argument("--check", help="a safetensors file made by nf-export: load it strictly and stop")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    net = make(a.model, a.classes).train()
    if a.check:
        from safetensors.torch import load_file
        net.load_state_dict(load_file(a.check), strict=True)
        print(json.dumps({"loaded": a.check, "model": a.model, "tensors": len(net.state_dict())}))
        return
    clip = [q for n, q in net.named_parameters() if not n.startswith("head")]
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(a.batch, 3, a.size, a.size, generator=g)
    y = torch.randint(0, a.classes, (a.batch,), generator=g)
    times = []
    for _ in range(a.steps + 2):
        t = time.perf_counter()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        adaptive_clip_grad(clip, 0.01)
        opt.step()
        opt.zero_grad()
        times.append(time.perf_counter() - t)
    m = statistics.median(times[2:])
    print(json.dumps({"program": "timm", "model": a.model, "size": a.size, "batch": a.batch, "threads": a.threads,
                      "images_per_second": a.batch / m, "torch": torch.__version__, "timm": timm.__version__}))


if __name__ == "__main__":
    main()
