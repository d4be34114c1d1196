"""Closed-form checks of the reference itself: the specification's section 9.2 and finite differences."""

import math

import torch

import reference as ref
import reference_bf16 as low
from reference import Recipe


def near(value, expected, relative):
    assert abs(value - expected) <= relative * max(abs(expected), 1e-300), (value, expected)


def check_schedules():  # 9.2 #24, #4
    r = Recipe()
    for step, eta in [(0, 1), (1102, 1), (1103, 0.9995918367), (1500, 0.6755102041),
                      (2000, 0.2673469388), (2204, 0.1008163265), (2205, 0.10018), (2244, 0.10018)]:
        near(ref.lr_factor(r, step), eta, 1e-9)
    for step, mu in [(0, .85), (150, .9), (300, .95), (2195, .95), (2196, .948), (2220, .9), (2244, .852)]:
        near(ref.momentum(r, step), mu, 1e-12)
    for step, long in [(0, 3), (734, 3), (735, 7), (1469, 7), (1470, 11), (2204, 11), (2205, 13)]:
        assert ref.long_window(r, step) == long
    rotary = ref.Rotary(r)
    table = {0: (1, 1, 1, 1), 1: (0.79963821,) * 4, 2: (0.63942128,) * 4,
             3: (0.51130575, 0.50422484, 0.50422484, 0.50422484),
             8: (0.16716619, 0.10004225, 0.079231478, 0.073630221),
             15: (0.034946468, 0.015708692, 0.010224950, 0.0087174075),
             16: (0.027944531, 0.012340843, 0.0079632578, 0.0067691444),
             24: (0.0046713809, 0.0020020204, 0.0012740130, 0.0010780110),
             31: (0.00097656250, 0.00041852679, 0.00026633524, 0.00022536059)}
    scales = (0.1, 0.11694595720774409, 0.12751752379570258, 0.1317779884389435)
    for stage, (old, new) in enumerate([(3, 3), (3, 7), (7, 11), (11, 13)]):
        if stage:
            rotary.yarn(old, new)
        near(rotary.scale, scales[stage], 1e-15)
        for j, row in table.items():
            near(rotary.omega[j].item(), row[stage], 5e-7)  # the table was computed in fp32


def random_model(r, scale=0.3):
    params = {n: ref.hashed(s, 1 + k, scale) for k, (n, s) in enumerate(r.shapes().items())}
    n = len(r.slots)
    params["scalars"] += torch.tensor([-1.5] * n + [1.0, 0.0] * n + [0.5, 0.5] * n + [0.3, 0.5])
    return params


def check_model():
    r = Recipe(heads=2, head_dim=64, rotary_active=16, vocab_size=300, window_block=4)
    n, rotary = len(r.slots), ref.Rotary(r)
    ids = torch.from_numpy(ref.uniform(99, 65) * 299).long()
    batch, windows = (ids[:-1], ids[1:], [0, 41, 64, 64]), (4, 12)

    params = random_model(r)  # 9.2 #1: a zero head makes every logit equal
    params["lm_head"].zero_()
    losses = ref.forward(r, params, batch, windows, rotary)
    assert (losses - math.log(384)).abs().max() < 1e-12
    near(ref.token_losses(torch.zeros(1, 50304), torch.tensor([7])).item(), 10.825840, 1e-7)

    params = random_model(r)  # 9.2 #10: skip wiring at the initial state
    params["scalars"] = torch.tensor([-1.5] * n + [1.0, 0.0] * n + [0.5, 0.5] * n + [0.0, 0.5])
    for name, p in params.items():
        if name.startswith("c_proj"):
            p.zero_()
        if name.startswith("qkvo"):
            p[3].zero_()
    trace, g = {}, 1 / (1 + math.exp(1.5))
    ref.hidden(r, params, batch[0], batch[2], windows, rotary, trace)
    assert (trace["x"] - (1 + 5 * g) * trace["x0"]).abs().max() < 1e-12
    assert (trace["x_back"] - (1 + 3 * g) * trace["x0"]).abs().max() < 1e-12
    # (smear is the identity at mu = 0, 9.2 #9)
    assert (trace["x0"] - ref.norm(params["embed"][batch[0]])).abs().max() == 0

    u = ref.hashed((5, 384), 3, 20.0).requires_grad_()  # 9.2 #11: softcap gradient
    y = torch.tensor([0, 17, 99, 300, 383])
    (ref.token_losses(u, y).sum() / 4).backward()
    s = torch.sigmoid(u.detach() / 7.5)
    p = (30 * s).softmax(-1) - torch.nn.functional.one_hot(y, 384)
    assert (u.grad - 4 * s * (1 - s) * p / 4).abs().max() < 1e-14

    mask = ref.visible([0, 0, 300, 301, 400, 400], 400, 128)  # 9.2 #6, #7
    assert mask[128, 0] and not mask[129, 0] and mask[129, 1] and mask[200].sum() == 129
    assert mask[300].sum() == 1 and mask[301].sum() == 1 and mask[399].sum() == 99

    cos, sin = rotary.tables(64)  # 9.2 #5: relative positions, and 16 + 16 channels at rest
    q, k = ref.hashed((1, 1, 64), 5, 1.0), ref.hashed((1, 1, 64), 6, 1.0)
    turned = [ref.rotate(x.expand(64, 1, 64), cos, sin) for x in (q, k)]
    near((turned[0][9] * turned[1][4]).sum().item(), (turned[0][60] * turned[1][55]).sum().item(), 1e-12)
    assert (turned[0][60, 0, 16:32] == q[0, 0, 16:32]).all() and (turned[0][60, 0, 48:] == q[0, 0, 48:]).all()
    near(turned[0][1, 0, 32].item(), (q[0, 0, 32] * math.cos(1) - q[0, 0, 0] * math.sin(1)).item(), 1e-14)


def check_finite_differences():  # 9.2 #29: two entries of every tensor of the full layer table
    r = Recipe(heads=2, head_dim=64, rotary_active=16, vocab_size=300, window_block=4)
    params, rotary = random_model(r), ref.Rotary(r)
    for p in params.values():
        p.requires_grad_()
    ids = torch.from_numpy(ref.uniform(99, 65) * 299).long()
    loss = lambda: ref.forward(r, params, (ids[:-1], ids[1:], [0, 41, 64, 64]), (4, 12), rotary).sum()
    loss().backward()
    for name, p in params.items():
        flat, grad = p.data.view(-1), p.grad.view(-1)
        for i in (grad.abs().argmax().item(), grad.abs().median(0).indices.item()):
            old, h, values = flat[i].item(), 1e-4, []
            with torch.no_grad():
                for k in (-2, -1, 1, 2):
                    flat[i] = old + k * h
                    values.append(loss().item())
            flat[i] = old
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
            assert abs(slope - grad[i]) <= 1e-6 * abs(grad[i]) + 1e-8, (name, i, slope, grad[i])


def check_optimizers():
    turbo = ref.METHODS["turbo4"]
    d = torch.tensor([3.0, -0.7, 11.0, -40.0])  # 9.2 #15-17
    o = ref.orthogonalize(torch.diag(d), turbo)
    assert (o - torch.diag(1.138 * d.sign())).abs().max() < 2e-3
    g = ref.hashed((48, 192), 2, 1.0)
    assert (ref.orthogonalize(-g, turbo) + ref.orthogonalize(g, turbo)).abs().max() == 0
    assert ref.orthogonalize(torch.zeros(6, 12), turbo).abs().max() == 0
    for sigma, out in [(.001, .1210), (.01, .9813), (.1, 1.0865), (.5, 1.0190), (.95, .8625), (.99, 1.1380)]:
        plain = ref.Method("none", 0, 0, "polar_express", 4)
        near(ref.orthogonalize(torch.full((1, 1), sigma), plain).item(), out, 5e-4)

    r = Recipe()
    muon = ref.NorMuon(r, {"c_proj.1": (48, 192), "c_fc.1": (48, 192)})
    p = torch.full((48, 192), 1e-3)  # 9.2 #18, #19
    muon.update("c_proj.1", p, g, r.muon_lr, 0.85)
    mixed = 0.15 * g + 0.85 * 0.15 * g
    o = ref.orthogonalize(mixed, turbo)
    assert (muon.s["c_proj.1"] - 0.05 * o.square().mean(0)).abs().max() < 1e-16
    step = (1e-3 - p) / 0.03
    step = step - 0.036 * 1e-3 * (step > 0.018 * 1e-3)  # the decay, where the mask let it in
    near(step.norm().item(), o.norm().item(), 1e-9)
    columns = step.square().mean(0)
    assert columns.max() - columns.min() < 1e-9 * columns.max()
    for name, factor in [("c_proj.1", 0.99892), ("c_fc.1", 0.99784)]:  # 9.2 #20
        p = torch.ones(48, 192)
        muon.m[name].zero_()
        muon.update(name, p, torch.zeros(48, 192), r.muon_lr, 0.95)
        assert (p - factor).abs().max() < 1e-12

    adam = ref.Adam(r, {"lm_head": (64,)})  # 9.2 #22
    p, g, adam.t = torch.zeros(64), ref.hashed((64,), 4, 1.0), 1
    adam.update("lm_head", p, g, r.adam_lr)
    assert (p + 0.008 * g.sign()).abs().max() < 1e-5
    every_mantissa = (1 + torch.arange(128) / 128).float()
    p = low.adam_bf16(torch.zeros(128).float(), [every_mantissa], 0.008)[0]
    assert set(p.tolist()) == {-0.00799560546875, -0.0079345703125}
    assert (p == -0.00799560546875).sum() == 121  # "about 95 % of mantissas"


def run_all():
    check_schedules()
    check_model()
    check_finite_differences()
    check_optimizers()


if __name__ == "__main__":
    run_all()
    print("the reference agrees with the specification's check values")
