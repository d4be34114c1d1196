"""A peer for the training step: the speedrun recipe in plain PyTorch with torch.compile, timed on one GPU.

    python3 bench/torch_step.py [--shard FILE] [--steps 10] [--micro-batches 8]

Prints ms per step and per micro-batch of 32 768 tokens, optimizer included: run it beside
`./train_gpt --recipe speedrun` on the same GPU. The architecture is docs/recipe.md's; attention is
torch.nn.attention.varlen's (flash attention 2); the head multiplies in fp8.
--small runs a tiny model with dense attention on the CPU, which checks the script itself.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

POLAR_EXPRESS = [(4.042929935166739, -2.808917465908714, 0.5000178451051316),
                 (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                 (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                 (2.3465413258596377, -1.7097828382687081, 0.42323551169305323)]
# Slot: attention?, long window?, value embedding or None, skip source or None (docs/recipe.md).
SLOTS = {1: (1, 0, 1, None), 2: (1, 0, 2, None), 3: (1, 0, None, None), 4: (1, 1, None, None), 5: (1, 0, None, None),
         6: (1, 0, None, 5), 7: (0, 0, None, 4), 8: (1, 0, None, 3), 9: (1, 0, 0, 2), 10: (1, 0, 1, 1),
         11: (1, 1, 2, None)}
BACKOUT_SLOT, CAP, CAP_DIV, SCALE = 8, 30.0, 7.5, 0.1


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Fp8Head(torch.autograd.Function):
    """u = x W^T in e4m3, its gradients from an e5m2 gradient (per-tensor constant scales)."""

    @staticmethod
    def forward(ctx, x, w, xs, ws, gs):
        x8, w8 = (x / xs).to(torch.float8_e4m3fn), (w / ws).to(torch.float8_e4m3fn)
        one = lambda s: torch.tensor(s, device=x.device, dtype=torch.float32)
        ctx.save_for_backward(x8, w8)
        ctx.scales = xs, ws, gs
        return torch._scaled_mm(x8, w8.T, out_dtype=torch.bfloat16, scale_a=one(xs), scale_b=one(ws), use_fast_accum=True)

    @staticmethod
    def backward(ctx, du):
        x8, w8 = ctx.saved_tensors
        xs, ws, gs = ctx.scales
        one = lambda s: torch.tensor(s, device=du.device, dtype=torch.float32)
        g8 = (du / gs).to(torch.float8_e5m2)
        dx = torch._scaled_mm(g8, w8.T.contiguous().T, out_dtype=torch.bfloat16, scale_a=one(gs), scale_b=one(ws))
        dw = torch._scaled_mm(x8.T.contiguous(), g8.T.contiguous().T, out_dtype=torch.float32, scale_a=one(xs),
                              scale_b=one(gs))
        return dx, dw.T.to(torch.bfloat16), None, None, None


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        bound = 3**0.5 * 0.5 * width**-0.5
        self.heads = heads
        self.qkvo = nn.Parameter(torch.empty(4, width, width).uniform_(-bound, bound))
        self.gate = nn.Parameter(torch.zeros(heads, 12, dtype=torch.bfloat16))

    def forward(self, a, ve, s, rotary, attend, window):
        t, width = a.shape
        w = self.qkvo.to(a.dtype)
        q, k, v = F.linear(a, w[:3].flatten(0, 1)).view(t, 3, self.heads, -1).unbind(1)
        cos, sin = rotary
        half = cos.size(-1)

        def turn(x):
            x1, x2 = norm(x).split(half, -1)
            return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), -1).to(a.dtype)

        v = s[0] * v if ve is None else s[0] * v + s[1] * ve.view_as(v)
        y = attend(turn(q), turn(k), v.to(a.dtype), window)
        y = y * torch.sigmoid(F.linear(a[:, :12], self.gate))[..., None]
        return F.linear(y.reshape(t, width), w[3])


class Model(nn.Module):
    def __init__(self, vocab, width, heads):
        super().__init__()
        bound, table = 3**0.5 * 0.5 * width**-0.5, lambda: nn.Parameter(torch.randn(vocab, width).bfloat16())
        self.embed, self.value_embed = table(), nn.ParameterList(table() for _ in range(3))
        self.head = nn.Parameter(0.02 * torch.randn(vocab, width).bfloat16())
        self.attn = nn.ModuleDict({str(i): Attention(width, heads) for i, s in SLOTS.items() if s[0]})
        self.fc = nn.ParameterList(torch.empty(width, 4 * width).uniform_(-bound, bound) for _ in SLOTS)
        self.proj = nn.ParameterList(torch.zeros(width, 4 * width) for _ in SLOTS)
        self.smear = nn.Parameter(torch.zeros(1, 12, dtype=torch.bfloat16))
        self.skip_gate = nn.Parameter(torch.full((5,), -1.5))
        self.mix = nn.Parameter(torch.tensor([[1.0, 0.0]] * 12))
        self.value_mix = nn.Parameter(torch.tensor([[0.5, 0.5]] * 12))
        self.mu, self.backout = nn.Parameter(torch.zeros(())), nn.Parameter(torch.tensor(0.5))

    def forward(self, ids, targets, rotary, attend, windows, fp8):
        e, values = self.embed[ids], [table[ids] for table in self.value_embed]
        smear = self.mu * torch.sigmoid(F.linear(e[1:, :12], self.smear)) * e[:-1]
        x = x0 = norm(torch.cat((e[:1], (e[1:] + smear).to(e.dtype))))
        outputs = {}
        for n, (i, (has_attention, long, ve, skip)) in enumerate(SLOTS.items()):
            if skip is not None:
                x = x + torch.sigmoid(self.skip_gate[i - 6]) * outputs[skip]
            x = (self.mix[i, 0] * x + self.mix[i, 1] * x0).to(e.dtype)
            if has_attention:
                value = None if ve is None else values[ve]
                x = x + self.attn[str(i)](norm(x), value, self.value_mix[i], rotary, attend, windows[long])
            h = norm(x) @ self.fc[n].to(x.dtype)
            x = x + F.linear(F.relu(h).square(), self.proj[n].to(x.dtype))
            outputs[i] = x
        x = norm((x - self.backout * outputs[BACKOUT_SLOT]).to(e.dtype))
        width = x.size(-1)
        u = Fp8Head.apply(x, self.head, width**0.5 / 448, 2.0**-9, 1 / 448) if fp8 else F.linear(x, self.head)
        return F.cross_entropy(CAP * torch.sigmoid(u.float() / CAP_DIV), targets, reduction="sum")


def dense_attention(cu, t):
    """For the check on the CPU."""
    p = torch.arange(t)
    doc = torch.searchsorted(cu.long(), p, right=True)

    def attend(q, k, v, window):
        seen = (p[:, None] >= p) & (p[:, None] - p <= window) & (doc[:, None] == doc)
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, seen, scale=SCALE).transpose(0, 1)

    return attend


def varlen_attention(cu, longest):
    from torch.nn.attention.varlen import varlen_attn

    def attend(q, k, v, window):
        return varlen_attn(q, k, v, cu, cu, longest, longest, scale=SCALE, window_size=(window, 0))

    return attend


def orthogonalize(g):
    """turbo4 on a batch of matrices."""
    x = g.bfloat16()
    a = x @ x.mT
    s = (1.02 * a.float().abs().sum(-1, keepdim=True) + 1e-6).rsqrt()
    x, a = (x * s).bfloat16(), (a * s * s.mT).bfloat16()
    for i, (ca, cb, cc) in enumerate(POLAR_EXPRESS):
        if i:
            a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=cb, alpha=cc)
        x = torch.baddbmm(x, b, x, beta=ca)
    return x


def muon_update(params, grads, momentum, second, lr):
    g = torch.stack(grads)
    momentum.lerp_(g, 0.05)
    o = orthogonalize(g.lerp(momentum, 0.95).flatten(0, -3))
    before = o.float().norm(dim=(-2, -1), keepdim=True)
    second.lerp_(o.float().square().mean(-2, keepdim=True), 0.05)
    o = o * second.clamp_min(1e-10).rsqrt()
    o = (o * (before / o.float().norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10))).view_as(g)
    p = torch.stack(params)
    p = p - lr * (o + 0.036 * p * (o * p >= 0))
    torch._foreach_copy_(params, list(p.unbind(0)))


def adam_update(p, m, v, g, lr):
    m.mul_(0.65).add_(g, alpha=0.35)
    v.mul_(0.95).addcmul_(g, g, value=0.05)
    p.sub_(lr * m / (v.sqrt() + 1e-8))


class Optimizer:
    def __init__(self, model, compiler):
        attn = [a.qkvo for a in model.attn.values()]
        self.banks = [attn, list(model.fc), list(model.proj)]
        self.adam = [model.embed, *model.value_embed, model.head]
        self.state = []
        for bank in self.banks:
            m = torch.zeros_like(torch.stack(list(bank)))
            flat = m.flatten(0, -3)
            self.state.append((m, torch.zeros_like(flat[:, :1, :])))
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.adam]
        self.muon_update, self.adam_update = compiler(muon_update), compiler(adam_update)

    @torch.no_grad()
    def step(self, number):
        for bank, (m, second) in zip(self.banks, self.state):
            self.muon_update([p.data for p in bank], [p.grad for p in bank], m, second, 0.03)
            for p in bank:
                p.grad = None
        if number % 2:
            for p, (m, v) in zip(self.adam, self.moments):
                self.adam_update(p.data, m, v, p.grad, 0.008)
                p.grad = None


def documents(shard, count, t, generator):
    """count micro-batches (ids, targets, cu): from a shard's documents, or of random ones of about 760 tokens."""
    out = []
    if shard:
        tokens = torch.from_numpy(np.memmap(shard, dtype=np.uint16, offset=1024).astype(np.int32))
    for i in range(count):
        ids = tokens[i * t:i * t + t + 1] if shard else torch.randint(0, 50256, (t + 1,), generator=generator,
                                                                      dtype=torch.int32)
        starts = (ids[:t] == 50256).nonzero().flatten() if shard else torch.arange(0, t, 760)
        ends = torch.full((512 - starts.numel(),), t)  # one shape for the compiler: empty documents at the end
        cu = torch.cat((torch.zeros(1, dtype=torch.int64), starts[starts > 0], ends)).int()
        out.append((ids[:t], ids[1:].long(), cu))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shard")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--micro-batches", type=int, default=8)
    parser.add_argument("--small", action="store_true")
    o = parser.parse_args()
    device = "cpu" if o.small else "cuda"
    t, vocab, width, heads = (256, 512, 64, 2) if o.small else (32768, 50304, 768, 6)
    windows = (128, 384)
    torch.manual_seed(0)
    model = Model(vocab, width, heads).to(device)
    compiler = (lambda f: f) if o.small else torch.compile
    optimizer = Optimizer(model, compiler)
    half = width // heads // 2
    omega = torch.cat(((1 / 1024) ** torch.linspace(0, 1, half // 2), torch.zeros(half - half // 2)))
    angle = torch.arange(t)[:, None] * omega
    rotary = tuple(f(angle)[:, None].bfloat16().to(device) for f in (torch.cos, torch.sin))
    batches = [[x.to(device) for x in b] for b in documents(o.shard, o.micro_batches, t, torch.Generator().manual_seed(1))]
    longest = max(cu.diff().max().item() for _, _, cu in batches)

    def attention(cu):
        return dense_attention(cu, t) if o.small else varlen_attention(cu, longest)

    def loss(ids, targets, cu):
        return model(ids % vocab, targets % vocab, rotary, attention(cu), windows, not o.small) / o.micro_batches

    forward = compiler(loss)

    def step(number):
        total = 0
        for batch in batches:
            value = forward(*batch)
            value.backward()
            total += value.detach()
        optimizer.step(number)
        return total

    for i in range(4):  # compiles, and warms up
        value = step(i)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(o.steps):
        value = step(i)
    if device == "cuda":
        torch.cuda.synchronize()
    ms = (time.perf_counter() - start) / o.steps * 1e3
    loss_per_token = value.item() / t
    memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0
    print(f"torch {torch.__version__}, {o.micro_batches} x {t} tokens: {ms:.1f} ms per step, {ms / o.micro_batches:.2f} ms per "
          f"micro-batch, loss {loss_per_token:.3f}, {memory:.1f} GB")


if __name__ == "__main__":
    main()
