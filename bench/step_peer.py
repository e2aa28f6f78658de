"""timm on PyTorch as the peer of our training step: forward, cross entropy with label smoothing 0.1, backward, timm's AGC 0.01 on
all but the head, SGD with Nesterov momentum (foreach), average of the weights (foreach). Random images in memory. Prints one
JSON line with the keys of bench/step_speed. Started by bench/step_versus.py and bench/train_speed.py.

  python bench/step_peer.py --model nfnet_f0 --size 192 --batch 8 --threads 2 --steps 6 [--compile] [--compute bfloat16] [--layout nhwc]
  python bench/step_peer.py --mode optim --model nfnet_f0 --threads 2             # AGC, SGD and average alone
  python bench/step_peer.py --model nfnet_nano --check exported.safetensors       # strict load only

nfnet_nano, _micro, ...: timm's NormFreeNet with the same blocks, stem and strides patched to ours.
"""
import argparse
import contextlib
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


def peak_mib(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


class Update:
    """What follows the backward pass: AGC, weight decay, momentum, update, average."""

    def __init__(self, net):
        self.params = list(net.parameters())
        self.clipped = [p for name, p in net.named_parameters() if not name.startswith("head")]
        groups = [{"params": [p for p in self.params if p.ndim > 1], "weight_decay": 2e-5},
                  {"params": [p for p in self.params if p.ndim <= 1], "weight_decay": 0.0}]
        self.sgd = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, foreach=True)
        self.average = [p.detach().clone() for p in self.params]

    def __call__(self):
        adaptive_clip_grad(self.clipped, 0.01)
        self.sgd.step()
        torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1 - 0.9999)


class Lap:
    """Seconds since the last call, once the device is done."""

    def __init__(self, device):
        self.cuda = device == "cuda"
        self.take()

    def take(self):
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        passed, self.begin = now - getattr(self, "begin", now), now
        return passed


def steps(a, net):
    """Milliseconds of each part, medians over the steps."""
    update = Update(net)
    layout = torch.channels_last if a.layout == "nhwc" else torch.contiguous_format
    net.to(memory_format=layout)
    run = torch.compile(net) if a.compile else net
    g = torch.Generator().manual_seed(0)
    x = torch.randn(a.batch, 3, a.size, a.size, generator=g).to(a.device, memory_format=layout)
    y = torch.randint(0, a.classes, (a.batch,), generator=g).to(a.device)
    autocast = torch.autocast(a.device, torch.bfloat16) if a.compute == "bfloat16" else contextlib.nullcontext()
    times = []
    for _ in range(a.steps + a.warm):
        lap, cpu = Lap(a.device), time.process_time()
        with autocast:
            logits = run(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=0.1)
        parts = [lap.take()]
        loss.backward()
        parts.append(lap.take())
        update()
        update.sgd.zero_grad()
        parts.append(lap.take())
        times.append(parts + [sum(parts), time.process_time() - cpu])
    if not torch.isfinite(loss):
        raise SystemExit("error: step_peer: the loss is not finite")
    names = ("forward", "backward", "update", "step", "cpu")
    ms = {name: 1e3 * statistics.median(part) for name, part in zip(names, zip(*times[a.warm:]))}
    return {"images_per_s": 1e3 * a.batch / ms["step"], "ms": ms}


def update_alone(a, net):
    update = Update(net)
    g = torch.Generator().manual_seed(1)
    for p in update.params:
        p.grad = (0.01 * torch.randn(p.shape, generator=g)).to(a.device)
    lap, times = Lap(a.device), []
    for _ in range(a.steps + a.warm):
        lap.take()
        update()
        times.append(lap.take())
    return {"optim": {"ms": 1e3 * statistics.median(times[a.warm:])}}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--mode", choices=("step", "optim", "count"), default="step", help="count: the number of parameters and nothing else")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--warm", type=int, default=3)
    p.add_argument("--classes", type=int, default=1000)
    p.add_argument("--compute", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    p.add_argument("--layout", choices=("nchw", "nhwc"), default="nchw")
    p.add_argument("--compile", action="store_true", help="torch.compile")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--check", help="a safetensors file made by nf-export: load it strictly and stop")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    net = make(a.model, a.classes).train()
    if a.check:
        from safetensors.torch import load_file
        net.load_state_dict(load_file(a.check), strict=True)
        print(json.dumps({"loaded": a.check, "model": a.model, "tensors": len(net.state_dict())}))
        return
    net.to(a.device)
    measure = {"step": steps, "optim": update_alone, "count": lambda *_: {}}[a.mode]
    out = {"program": "timm", "mode": a.mode, "model": a.model, "parameters": sum(q.numel() for q in net.parameters()),
           "size": a.size, "batch": a.batch, "compute": a.compute, "layout": a.layout, "compile": a.compile, "device": a.device,
           "threads": a.threads, "steps": a.steps, **measure(a, net), "peak_mib": peak_mib(a.device), "torch": torch.__version__,
           "timm": timm.__version__}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
