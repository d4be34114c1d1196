"""The specification in PyTorch float64: model, optimizers, schedules, orthogonalisation.

Written from the project's specification of the recipe (section numbers below) and independent of the
C sources, so that the two can judge each other. Nothing is rounded to a storage type anywhere: this
is what the C program computes with `--storage real --head full`. Gradients come from autograd.
"""

import math
import re
from dataclasses import dataclass, field

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

# ------------------------------------------------------------------------------------------ inputs
#
# u(seed, i) = (finalize(seed*0x9E3779B97F4A7C15 + i*0xD1342543DE82EF95 mod 2^64) >> 11) * 2^-53
# finalize(z): z = (z ^ z>>30) * 0xBF58476D1CE4E5B9;  z = (z ^ z>>27) * 0x94D049BB133111EB;
#              z ^ z>>31                      (all mod 2^64: the splitmix64 output function)


def finalize(z):
    z = np.asarray(z, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(seed, count):
    """u(seed, 0..count) in [0, 1), as a numpy float64 vector."""
    base = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    i = np.arange(count, dtype=np.uint64)
    return (finalize(base + i * np.uint64(0xD1342543DE82EF95)) >> np.uint64(11)) * 2.0**-53


def hashed(shape, seed, scale, offset=0.0):
    """A tensor with entries scale*(2u - 1) + offset, u indexed in row-major order."""
    u = uniform(seed, math.prod(shape))
    return torch.from_numpy(scale * (2 * u - 1) + offset).reshape(shape)


def sketch(x, entries):
    """S_k = sum_i x_i * (bit k of finalize(i) ? +1 : -1)."""
    x = x.detach().reshape(-1).numpy()
    h = finalize(np.arange(x.size, dtype=np.uint64))
    sign = lambda k: ((h >> np.uint64(k)) & np.uint64(1)).astype(np.float64) * 2 - 1
    return [float(x @ sign(k)) for k in range(entries)]


# ------------------------------------------------------------------------------------------ recipe


@dataclass
class Slot:
    executed: bool
    window: str = ""  # "s", "l", or "" for a slot without attention
    mlp: bool = False
    value_embed: int = -1
    skip_from: int = -1
    skip_gate: int = -1  # index in scalars
    back: bool = False


@dataclass
class Recipe:
    layers: str = "- smv1 smv2 sm lm sm sm<5 m<4 smb<3 smv0<2 smv1<1 lmv2"
    vocab_size: int = 50257
    heads: int = 6
    head_dim: int = 128
    mlp_ratio: int = 4
    gate_channels: int = 12
    rotary_active: int = 32
    attn_scale: float = 0.1
    micro_batch: int = 32768
    micro_batches: int = 8
    scheduled_steps: int = 2205
    extension_steps: int = 40
    cooldown_frac: float = 0.5
    lr_floor: float = 0.1
    window_block: int = 128
    windows: str = "3,7,11"
    window_extension: int = 13
    window_final: int = 20
    momentum_start: float = 0.85
    momentum_peak: float = 0.95
    momentum_warmup: int = 300
    momentum_cooldown: int = 50
    muon_lr: float = 0.03
    muon_wd: float = 1.2
    muon_beta2: float = 0.95
    fc_lr_mul: float = 2.0
    adam_lr: float = 0.008
    adam_beta1: float = 0.65
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    embed_lr_mul: float = 75.0
    head_lr_mul: float = 1.0
    scalar_lr_mul: float = 5.0
    ortho: str = "turbo4"
    head: str = "full"
    slots: list = field(init=False, repr=False)

    def __post_init__(self):
        self.slots, gates = [], 0
        for word in self.layers.split():
            if word == "-":
                self.slots.append(Slot(False))
                continue
            letters = re.sub(r"v\d|<\d+", "", word)
            ve, skip = re.search(r"v(\d)", word), re.search(r"<(\d+)", word)
            slot = Slot(True, mlp="m" in letters, back="b" in letters)
            slot.window = "s" if "s" in letters else "l" if "l" in letters else ""
            slot.value_embed = int(ve[1]) if ve else -1
            if skip:
                slot.skip_from, slot.skip_gate, gates = int(skip[1]), gates, gates + 1
            self.slots.append(slot)

    @property
    def width(self):
        return self.heads * self.head_dim

    @property
    def padded_vocab(self):
        return (self.vocab_size + 127) // 128 * 128

    @property
    def total_steps(self):
        return self.scheduled_steps + self.extension_steps

    def shapes(self):
        """Every parameter tensor of section 1.1, by name."""
        d, v, n = self.width, self.padded_vocab, len(self.slots)
        shapes = {"embed": (v, d)}
        for k in range(1 + max(s.value_embed for s in self.slots)):
            shapes[f"value_embed.{k}"] = (v, d)
        shapes.update({"lm_head": (v, d), "scalars": (5 * n + 2,)})
        shapes["smear_gate"] = (1, self.gate_channels)
        for i, slot in enumerate(self.slots):
            if slot.window:
                shapes[f"attn_gate.{i}"] = (self.heads, self.gate_channels)
                shapes[f"qkvo.{i}"] = (4, d, d)
            if slot.mlp:
                shapes[f"c_fc.{i}"] = (d, self.mlp_ratio * d)
                shapes[f"c_proj.{i}"] = (d, self.mlp_ratio * d)
        return shapes


# --------------------------------------------------------------------------------------- schedules


def lr_factor(r, step):  # 5.1
    x = min(0.9999, step / r.scheduled_steps)
    if x < 1 - r.cooldown_frac:
        return 1.0
    w = (1 - x) / r.cooldown_frac
    return w + r.lr_floor * (1 - w)


def long_window(r, step):  # 5.2, in blocks
    if step >= r.scheduled_steps:
        return r.window_extension
    phases = [int(w) for w in r.windows.split(",")]
    return phases[int(len(phases) * step / r.scheduled_steps)]


def momentum(r, step):  # 5.4
    rise, start = r.momentum_peak - r.momentum_start, r.total_steps - r.momentum_cooldown
    if step < r.momentum_warmup:
        return r.momentum_start + rise * step / r.momentum_warmup
    if step > start:
        return r.momentum_peak - rise * (step - start) / r.momentum_cooldown
    return r.momentum_peak


class Rotary:
    """Frequencies of the active channels and the softmax scale; yarn() is section 5.3."""

    def __init__(self, r):
        self.recipe, self.scale = r, r.attn_scale
        self.omega = (1 / 1024) ** (torch.arange(r.rotary_active) / (r.rotary_active - 1))

    def yarn(self, old, new):
        turns = self.recipe.window_block * old * self.omega / (2 * math.pi)
        kappa = old / new
        gamma = torch.clamp((turns - 1) / (32 - 1), 0, 1)
        self.omega = self.omega * (kappa + gamma * (1 - kappa))
        self.scale *= 1 + 0.2 * math.log(new / old)

    def tables(self, tokens):
        """cos and sin of p*omega, (T, 1, head_dim/2); the inactive half of the frequencies is 0."""
        still = torch.zeros(self.recipe.head_dim // 2 - self.omega.numel())
        angle = torch.outer(torch.arange(tokens).double(), torch.cat([self.omega, still]))
        return torch.cos(angle)[:, None], torch.sin(angle)[:, None]


# ------------------------------------------------------------------------------------------- model


def norm(x):  # 2.1
    return x * (x.square().mean(-1, keepdim=True) + 2.0**-23).rsqrt()


def visible(cu_seqlens, tokens, window):
    """(T, T) mask: query p of document [c, c') sees j in [max(c, p - window), p]."""
    p = torch.arange(tokens)
    cu = torch.tensor(cu_seqlens)
    start = cu[torch.searchsorted(cu, p, right=True) - 1]
    q, k = p[:, None], p[None, :]
    return (k <= q) & (k >= q - window) & (k >= start[:, None])


def rotate(x, cos, sin):  # 2.4 step 3, x (T, H, d)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)


def attention(r, params, i, a, ve, mask, cos, sin, scale):  # 2.4
    tokens, n, lam = a.shape[0], len(r.slots), params["scalars"]
    wq, wk, wv, wo = params[f"qkvo.{i}"]
    q, k, v = ((a @ w.T).view(tokens, r.heads, r.head_dim) for w in (wq, wk, wv))
    q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
    v = lam[3 * n + 2 * i] * v
    if ve is not None:
        v = v + lam[3 * n + 2 * i + 1] * ve.view_as(v)
    scores = scale * torch.einsum("phc,jhc->hpj", q, k)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    y = torch.einsum("hpj,jhc->phc", weights, v)
    gate = torch.sigmoid(a[:, : r.gate_channels] @ params[f"attn_gate.{i}"].T)
    return (y * gate[:, :, None]).reshape(tokens, r.width) @ wo.T


def hidden(r, params, ids, cu_seqlens, windows, rotary, trace=None):
    """Sections 2.2-2.6 up to the normed input of the head. windows = (short, long) in tokens."""
    tokens, n, lam = ids.numel(), len(r.slots), params["scalars"]
    cos, sin = rotary.tables(tokens)
    masks = {w: visible(cu_seqlens, tokens, size) for w, size in zip("sl", windows)}

    e = params["embed"][ids]
    z = e[1:, : r.gate_channels] @ params["smear_gate"].T
    x = torch.cat([e[:1], e[1:] + lam[5 * n] * torch.sigmoid(z) * e[:-1]])
    x = x0 = norm(x)
    outputs, x_back = {}, None
    for i, slot in enumerate(r.slots):
        if not slot.executed:
            continue
        if slot.skip_from >= 0:
            x = x + torch.sigmoid(lam[slot.skip_gate]) * outputs[slot.skip_from]
        x = lam[n + 2 * i] * x + lam[n + 2 * i + 1] * x0
        if slot.window:
            k = slot.value_embed
            ve = params[f"value_embed.{k}"][ids] if k >= 0 else None
            x = x + attention(r, params, i, norm(x), ve, masks[slot.window], cos, sin, rotary.scale)
        if slot.mlp:
            h = norm(x) @ params[f"c_fc.{i}"]
            x = x + h.clamp(min=0).square() @ params[f"c_proj.{i}"].T
        outputs[i] = x
        if slot.back:
            x_back = x
    if trace is not None:
        trace.update(x0=x0, x=x, x_back=x_back)
    if x_back is not None:
        x = x - lam[5 * n + 1] * x_back
    return norm(x)


def token_losses(logits, targets):  # 2.6: softcap, then cross-entropy over all padded columns
    capped = 30 * torch.sigmoid(logits / 7.5)
    return capped.logsumexp(-1) - capped.gather(-1, targets[:, None])[:, 0]


def forward(r, params, batch, windows, rotary):
    """The loss of each token of one micro-batch."""
    ids, targets, cu_seqlens = batch
    x = hidden(r, params, ids, cu_seqlens, windows, rotary)
    return token_losses(x @ params["lm_head"].T, targets)


# ------------------------------------------------------------------------------- orthogonalisation

JORDAN = [(3.4445, -4.7750, 2.0315)]
YOU = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
       (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)]
POLAR_EXPRESS = [(8.156554524902461, -22.48329292557795, 15.878769915207462),
                 (4.042929935166739, -2.808917465908714, 0.5000178451051316),
                 (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                 (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                 (2.3465413258596377, -1.7097828382687081, 0.42323551169305323)]
CANS = [(8.4703, -25.1081, 18.6293), (4.1828, -3.1087, 0.5806), (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074), (2.2737, -1.6447, 0.4162)]
TURBO_GA = [(4.6051, -9.6552, 5.6769), (4.7505, -6.0861, 2.1790), (2.7763, -2.3190, 0.5523),
            (2.4231, -2.2861, 0.8193)]
CUBIC = [(3.3657, -3.3421, 0), (2.5744, -1.4957, 0), (2.5369, -1.4313, 0), (2.4419, -1.2764, 0),
         (2.2230, -0.9631, 0)]
TABLES = dict(jordan=JORDAN, you=YOU, polar_express=POLAR_EXPRESS, cans=CANS, turbo_ga=TURBO_GA,
              cubic=CUBIC)


@dataclass
class Method:
    normalizer: str
    delta: float
    eps: float
    table: str
    iterations: int
    gram: bool = False
    restarts: tuple = ()

    def coefficients(self):
        rows, k = TABLES[self.table], self.iterations
        return rows[-k:] if k <= len(rows) else rows + [rows[-1]] * (k - len(rows))


METHODS = {
    "muon5": Method("frobenius", 0.0, 1e-7, "jordan", 5),
    "you5": Method("frobenius", 0.0, 1e-7, "you", 5),
    "polar5": Method("frobenius", 0.02, 1e-6, "polar_express", 5),
    "turbo4": Method("aol", 0.02, 1e-6, "polar_express", 4),
    "turbo4-you": Method("aol", 0.0, 1e-7, "you", 4),
    "turbo4-ga": Method("aol", 0.0, 1e-7, "turbo_ga", 4),
    "s4-gram5": Method("schatten4", 0.02, 1e-6, "polar_express", 5, True, (2,)),
    "s4-gram4": Method("schatten4", 0.02, 1e-6, "polar_express", 4, True),
}


def orthogonalize(g, method):
    """The approximate polar factor of one matrix."""
    if g.shape[0] > g.shape[1]:
        return orthogonalize(g.T, method).T
    widen, eps, gram = 1 + method.delta, method.eps, g @ g.T
    if method.normalizer == "frobenius":
        x = g / (widen * g.norm() + eps)
    elif method.normalizer == "aol":
        x = g * (widen * gram.abs().sum(1, keepdim=True) + eps) ** -0.5
    elif method.normalizer == "schatten4":
        x = g / (widen * gram.norm() + eps) ** 0.5
    else:
        x = g
    return (gram_loop if method.gram else quintic_loop)(x, method)


def quintic_loop(x, method):
    for a, b, c in method.coefficients():
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def gram_loop(x, method):
    eye = torch.eye(x.shape[0])
    r, q = x @ x.T, eye
    for done, (a, b, c) in enumerate(method.coefficients()):
        if done in method.restarts:
            x = q @ x
            r, q = x @ x.T, eye
        z = b * r + c * r @ r
        q = a * q + q @ z
        r = (a * eye + z) @ r @ (a * eye + z)
    return q @ x


# -------------------------------------------------------------------------------------- optimizers


class NorMuon:  # 4.1
    def __init__(self, r, shapes):
        self.recipe = r
        self.m = {n: torch.zeros(s) for n, s in shapes.items()}
        # One second moment per column of every orthogonalised matrix: the mean is over its rows.
        self.s = {n: torch.zeros(*s[:-2], 1, s[-1]) for n, s in shapes.items()}

    def update(self, name, p, g, lr, mu):
        r, m, s = self.recipe, self.m[name], self.s[name]
        m += (1 - mu) * (g - m)
        mixed = (1 - mu) * g + mu * m
        method = METHODS[r.ortho]
        if mixed.dim() == 3:
            o = torch.stack([orthogonalize(part, method) for part in mixed])
        else:
            o = orthogonalize(mixed, method)
        frobenius = lambda t: t.square().sum((-2, -1), keepdim=True).sqrt()
        before = frobenius(o)
        s += (1 - r.muon_beta2) * (o.square().mean(-2, keepdim=True) - s)
        o = o * s.clamp(min=1e-10).rsqrt()
        o = o * (before / frobenius(o).clamp(min=1e-10))
        mask = (o * p >= 0).double()
        o = o + p * (lr * r.muon_wd * mask)
        lr_mul = r.fc_lr_mul if name.startswith("c_fc") else 1.0
        p -= lr * lr_mul * o


class Adam:  # 4.2
    def __init__(self, r, shapes):
        self.recipe, self.t = r, 0
        self.m = {n: torch.zeros(s) for n, s in shapes.items()}
        self.v = {n: torch.zeros(s) for n, s in shapes.items()}

    def update(self, name, p, g, lr):
        r, m, v = self.recipe, self.m[name], self.v[name]
        lr_mul = {"lm_head": r.head_lr_mul, "scalars": r.scalar_lr_mul}.get(name, r.embed_lr_mul)
        m.mul_(r.adam_beta1).add_((1 - r.adam_beta1) * g)
        v.mul_(r.adam_beta2).add_((1 - r.adam_beta2) * g.square())
        alpha = lr * lr_mul * math.sqrt(1 - r.adam_beta2**self.t) / (1 - r.adam_beta1**self.t)
        p -= m / (v.sqrt() + r.adam_eps) * alpha


def is_adam(name):
    return name == "scalars" or name == "lm_head" or "embed" in name


class Trainer:
    """Sections 4 and 5.5: advance windows, accumulate the gradient of A micro-batches, step."""

    def __init__(self, r, params):
        self.recipe, self.params = r, params
        self.rotary, self.step = Rotary(r), 0
        shapes = {n: tuple(p.shape) for n, p in params.items()}
        self.muon = NorMuon(r, {n: s for n, s in shapes.items() if not is_adam(n)})
        self.adam = Adam(r, {n: s for n, s in shapes.items() if is_adam(n)})
        for p in params.values():
            p.requires_grad_()

    def windows(self, final=False):
        r, long = self.recipe, long_window(self.recipe, self.step)
        return long // 2 * r.window_block, (r.window_final if final else long) * r.window_block

    def begin_step(self):
        if self.step > 0:
            old, new = (long_window(self.recipe, s) for s in (self.step - 1, self.step))
            if old != new:
                self.rotary.yarn(old, new)

    def mean_loss(self, batches, windows):
        with torch.no_grad():
            losses = [forward(self.recipe, self.params, b, windows, self.rotary) for b in batches]
        return torch.cat(losses).mean().item()

    def gradients(self, batches):
        """Adds the step's gradient to .grad; returns the mean loss per token."""
        total = 0.0
        for batch in batches:
            losses = forward(self.recipe, self.params, batch, self.windows(), self.rotary)
            (losses.sum() / len(batches)).backward()
            total += losses.detach().mean().item() / len(batches)
        return total

    def optimize(self):
        r, eta, odd = self.recipe, lr_factor(self.recipe, self.step), self.step % 2 == 1
        self.adam.t += odd
        with torch.no_grad():
            for name, p in self.params.items():
                if is_adam(name) and not odd:
                    continue  # gradients of two steps add up
                if is_adam(name):
                    self.adam.update(name, p, p.grad, r.adam_lr * eta)
                else:
                    self.muon.update(name, p, p.grad, r.muon_lr * eta, momentum(r, self.step))
                p.grad = None
        self.step += 1
