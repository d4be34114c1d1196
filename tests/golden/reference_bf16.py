"""The optimizers in bf16 storage, operation by operation, as the specification's sections 4.1 and 4.2
say it for tensors without fp32 masters. Every value is a bf16 number held in `work` precision;
R() rounds one result to bf16. With work = float32 this is what an eager bf16 program computes.
"""

import math

import torch

from reference import POLAR_EXPRESS


def round_bf16(x):
    return x.to(torch.float32).bfloat16().to(x.dtype)


def f32(x):
    """A host coefficient as the kernel sees it: fp64 cast to fp32."""
    return torch.tensor(x, dtype=torch.float32).item()


def adam_bf16(p, grads, lr, beta1=0.65, beta2=0.95, eps=1e-8, R=round_bf16):
    """4.2 steps 2-6 over a list of gradients; returns (p, m, v)."""
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t, g in enumerate(grads, start=1):
        m = R(R(f32(beta1) * m) + f32(1 - beta1) * g)
        v = R(R(f32(beta2) * v) + f32(1 - beta2) * (g * g))
        q = R(R(v.sqrt()) + f32(eps))
        alpha = f32(lr * math.sqrt(1 - beta2**t) / (1 - beta1**t))
        p = R(p - R(R(m / q) * alpha))
    return p, m, v


def adam_eager(p, grads, lr, beta1=0.65, beta2=0.95, eps=1e-8):
    """The same with torch's own bf16 operators, to confirm that R() after each is what they do.
    torch's CPU `add` rounds a scalar operand to bf16 first, the GPU's and every `addcmul` keep it in
    fp32: hence addcmul by ones."""
    p, m, v = p.bfloat16(), torch.zeros_like(p).bfloat16(), torch.zeros_like(p).bfloat16()
    one = torch.ones_like(p)
    for t, g in enumerate(grads, start=1):
        g = g.bfloat16()
        m.mul_(beta1).addcmul_(g, one, value=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        alpha = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        p.sub_(m.div(v.sqrt().addcmul_(one, one, value=eps)).mul_(alpha))
    return p, m, v


def turbo4_bf16(x, R=round_bf16):
    """4.1's orthogonaliser: products accumulate in `work`, round once; s is never rounded to bf16."""
    a = R(x @ x.T)
    s = (f32(1.02) * a.abs().sum(1) + f32(1e-6)).rsqrt()
    x, a = R(x * s[:, None]), R(a * s[:, None] * s[None, :])
    for k, (ca, cb, cc) in enumerate(POLAR_EXPRESS[1:]):
        a = a if k == 0 else R(x @ x.T)
        b = R(f32(cc) * (a @ a) + f32(cb) * a)
        x = R(f32(ca) * x + b @ x)
    return x


def normuon_bf16(p, grads, momenta, lr, wd=1.2, beta2=0.95, R=round_bf16, R_sum=round_bf16):
    """4.1 for one bf16 gate: mask, decay and step sizes are bf16 too; returns (p, m, s).
    R_sum rounds what was computed from sums of several terms."""
    m, s = torch.zeros_like(p), torch.zeros_like(p[:1])
    step_size = round_bf16(torch.tensor(lr)).item()
    decay = round_bf16(torch.tensor(lr * wd)).item()
    for g, mu in zip(grads, momenta):
        m = R(m + f32(1 - mu) * (g - m))
        mixed = R(m - (m - g) * f32(1 - mu))  # lerp(g, m, mu) for mu >= 0.5
        o = turbo4_bf16(mixed, R_sum)
        before = R_sum(o.norm())
        mean = R_sum(R(o * o).mean(0, keepdim=True))
        s = R(s + f32(1 - beta2) * (mean - s))
        o = R(o * R(s.clamp(min=1e-10).rsqrt()))
        rho = R(before / R_sum(o.norm()).clamp(min=1e-10))
        o = R(o * rho)
        keep = (o * p >= 0).to(p.dtype)
        o = R(o + p * (decay * keep))
        p = R(p - step_size * o)
    return p, m, s


def bf16_bits(x):
    return [b & 0xFFFF for b in x.reshape(-1).bfloat16().view(torch.int16).tolist()]


def fp8_bits(x, dtype):
    """Saturating conversion of fp32 values: clamp to the largest finite number, then round."""
    top = torch.finfo(dtype).max
    return x.clamp(-top, top).to(dtype).view(torch.uint8).tolist()
