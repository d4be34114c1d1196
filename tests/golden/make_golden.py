"""Writes the golden files beside this script: `python3 make_golden.py` (needs torch, takes a minute).

  <case>.txt    ten training steps of a small model in float64 (cases below)
  ns.txt        orthogonalisation methods on hash inputs, float64
  yarn.txt      schedules and rotary frequencies of the speedrun recipe, float64
  rounding.txt  bf16 and fp8 conversions, Adam and NorMuon in bf16 storage, bit for bit

Inputs are hashes (reference.py), so the files hold seeds and results only. Big results are stored as
element count, Frobenius norm and a sketch of random-sign sums: the mean over k of (S_k - S'_k)^2
estimates ||x - x'||_F^2. golden.h reads the files.
"""

import os
import struct

import torch

import check_reference
import reference as ref
import reference_bf16 as low
from reference import METHODS, Method, Recipe

HERE = os.path.dirname(os.path.abspath(__file__))
CASE_SKETCH, NS_SKETCH = 16, 8


def numbers(values, fmt="%.17g"):
    return " ".join(fmt % v for v in values)


def write(name, lines):
    with open(os.path.join(HERE, name), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(f"{name}: {os.path.getsize(os.path.join(HERE, name))} bytes")


# ------------------------------------------------------------------------------------------- cases

SHORT_RUN = dict(vocab_size=300, scheduled_steps=8, extension_steps=2, momentum_warmup=4, momentum_cooldown=3)
CASES = {
    # The speedrun's layer table; ten steps cross the three YaRN updates.
    "speedrun_small": Recipe(heads=2, head_dim=64, rotary_active=16, micro_batch=96, micro_batches=2,
                             window_block=8, **SHORT_RUN),
    # One wide head; an idle slot, a slot without attention, one without MLP; skips into both.
    "wide_head": Recipe(layers="smv0 - l m<2 lmbv1 sv0<0 lm", heads=1, head_dim=128, rotary_active=32,
                        micro_batch=160, micro_batches=1, window_block=16, **SHORT_RUN),
    # No skip, no value embedding, no idle slot; three micro-batches; windows small enough for the final one to matter.
    "plain": Recipe(layers="sm lmb sm lm", heads=2, head_dim=64, rotary_active=16, micro_batch=128,
                    micro_batches=3, window_block=4, ortho="muon5", **SHORT_RUN),
}
NOT_FIELDS = ("slots",)

# Scale of the uniform hash by kind of tensor: large enough that no gradient is tiny.
SCALES = dict(embed=1.7, value_embed=1.7, lm_head=0.3, smear_gate=0.5, attn_gate=0.5, qkvo=0.08,
              c_fc=0.08, c_proj=0.08)


def cu_seqlens(pattern, tokens):
    """Document boundaries: one piece, length-1 pieces, zero-length pieces first, inside and last."""
    at = lambda fraction: round(fraction * tokens)
    return [
        [0, 0, at(.18), at(.18) + 1, at(.35), tokens, tokens],
        [0, 1, at(.3), at(.53), tokens],
        [0, tokens],
        [0, at(.05), at(.1), at(.43), at(.43) + 1, at(.43) + 1, tokens, tokens, tokens],
        [0, tokens - 1, tokens],
    ][pattern % 5]


def make_batch(r, seed, cu):
    """T + 1 hash tokens in [0, vocab_size - 1), BOS at every document start; targets are the next."""
    ids = torch.from_numpy(ref.uniform(seed, r.micro_batch + 1) * (r.vocab_size - 1)).long()
    for start in cu:
        if start < r.micro_batch:
            ids[start] = r.vocab_size - 1
    return ids[:-1], ids[1:], cu


def initial_scalars(r, seed):
    """The specification's initial values, each moved by up to 0.2; smear starts at 0.3 to matter."""
    n = len(r.slots)
    init = [-1.5] * n + [1.0, 0.0] * n + [0.5, 0.5] * n + [0.3, 0.5]
    return torch.tensor(init) + ref.hashed((5 * n + 2,), seed, 0.2)


def result_line(kind, name, x):
    return f"{kind} {name} {x.numel()} {x.detach().norm().item():.17g} {numbers(ref.sketch(x, CASE_SKETCH))}"


def make_case(number, name, r):
    lines = [f"# Golden values of case {name}, float64; written by make_golden.py, read by golden.h.",
             "# set FIELD VALUE | scalars N VALUES | tensor NAME ELEMENTS SEED SCALE OFFSET: scale*(2u-1)+offset",
             "# batch STEP MICRO SEED N CU_SEQLENS: T+1 ids floor(u*(vocab_size-1)), id 0..T-1 at a boundary < T",
             "#   is vocab_size-1; inputs are the first T ids, targets the last T",
             "# loss STEP MEAN: before the step's update; after ten steps `loss 10` has the windows of step 10,",
             "#   loss_final the same batch with the final validation's long window",
             "# gradient (step 0, sum over tokens / A) and change (ten steps): NAME ELEMENTS NORM SKETCH"]
    lines += [f"set {k} {getattr(r, k)}" for k in vars(r) if k not in NOT_FIELDS]
    lines.append(f"sketch {CASE_SKETCH}")

    params = {}
    for k, (tensor, shape) in enumerate(r.shapes().items()):
        seed = 1000 * number + k
        if tensor == "scalars":
            params[tensor] = initial_scalars(r, seed)
            lines.append(f"scalars {shape[0]} {numbers(params[tensor].tolist())}")
            continue
        scale = SCALES[tensor.split(".")[0]]
        params[tensor] = ref.hashed(shape, seed, scale)
        lines.append(f"tensor {tensor} {params[tensor].numel()} {seed} {scale} 0")

    trainer = ref.Trainer(r, params)
    start = {n: p.detach().clone() for n, p in params.items()}
    for step in range(r.total_steps + 1):
        batches = []
        for micro in range(r.micro_batches):
            index = step * r.micro_batches + micro
            seed, cu = 1000 * number + 500 + index, cu_seqlens(index, r.micro_batch)
            batches.append(make_batch(r, seed, cu))
            lines.append(f"batch {step} {micro} {seed} {len(cu)} {' '.join(map(str, cu))}")
        if step == r.total_steps:
            lines.append(f"loss {step} {trainer.mean_loss(batches, trainer.windows()):.17g}")
            lines.append(f"loss_final {trainer.mean_loss(batches, trainer.windows(final=True)):.17g}")
            break
        trainer.begin_step()
        lines.append(f"loss {step} {trainer.gradients(batches):.17g}")
        if step == 0:
            for tensor, p in params.items():
                assert p.grad.norm() > 1e-3 * p.norm(), (tensor, p.grad.norm(), p.norm())
            lines += [result_line("gradient", n, p.grad) for n, p in params.items()]
        trainer.optimize()
    lines += [result_line("change", n, p - start[n]) for n, p in params.items()]
    write(f"{name}.txt", lines)


# -------------------------------------------------------------------------------- orthogonalisation

SHAPES = [(6, 12), (1, 12), (12, 6), (64, 64), (48, 192)]


def ns_methods():
    methods = dict(METHODS)
    for table in ("cans", "cubic"):
        methods[f"{table}-frobenius-5"] = Method("frobenius", 0.0, 1e-7, table, 5)
    for restarts in [(), (2,)]:
        tag = "-restart2" if restarts else ""
        methods["turbo4-gram" + tag] = Method("aol", 0.02, 1e-6, "polar_express", 4, True, restarts)
        methods["turbo4-you-gram" + tag] = Method("aol", 0.0, 1e-7, "you", 4, True, restarts)
    methods["muon5-gram-restart1-3"] = Method("frobenius", 0.0, 1e-7, "jordan", 5, True, (1, 3))
    for table in ("jordan", "polar_express"):
        for normalizer in ("none", "frobenius"):
            for k in range(1, 9):
                methods[f"{table}-{normalizer}-{k}"] = Method(normalizer, 0.0, 1e-7, table, k)
    return methods


def make_ns():
    lines = ["# Orthogonalisation in float64. Input scale*(2u-1), row-major. Errors against U V^T of a float64 SVD.",
             "# `iterations` takes the last rows of the table, and repeats its last row beyond its length;",
             "# restarts are numbers of iterations done before the restart.",
             f"sketch {NS_SKETCH}",
             "# ns LABEL NORMALIZER DELTA EPS TABLE ITERATIONS GRAM N_RESTARTS RESTARTS.. ROWS COLS SEED SCALE",
             "#    POLAR_ERROR ORTHOGONALITY_ERROR NORM SKETCH"]
    for label, m in ns_methods().items():
        for index, (rows, cols) in enumerate(SHAPES):
            # Without a normaliser the input itself must have a spectral norm below 1.
            seed, scale = 70 + index, 0.05 if m.normalizer == "none" else 0.7
            g = ref.hashed((rows, cols), seed, scale)
            y = ref.orthogonalize(g, m)
            u, _, vt = torch.linalg.svd(g, full_matrices=False)
            polar = ((y - u @ vt).norm() / (u @ vt).norm()).item()
            wide = y if rows <= cols else y.T
            side = wide.shape[0]
            orthogonality = (wide @ wide.T - torch.eye(side)).norm().item() / side**0.5
            restarts = " ".join(map(str, (len(m.restarts), *m.restarts)))
            lines.append(f"ns {label} {m.normalizer} {m.delta} {m.eps} {m.table} {m.iterations} {m.gram:d} "
                         f"{restarts} {rows} {cols} {seed} {scale} {polar:.12g} {orthogonality:.12g} "
                         f"{y.norm().item():.13g} {numbers(ref.sketch(y, NS_SKETCH), '%.13g')}")
    write("ns.txt", lines)


# --------------------------------------------------------------------------------------- schedules


def make_yarn():
    r = Recipe()
    lines = ["# The speedrun recipe's schedules in float64. scale STAGE VALUE and omega STAGE 32 VALUES after",
             "# `stage` YaRN updates (3->7->11->13 blocks of 128); schedule STEP LR_FACTOR MOMENTUM SHORT LONG"]
    rotary = ref.Rotary(r)
    for stage, (old, new) in enumerate([(3, 3), (3, 7), (7, 11), (11, 13)]):
        if stage:
            rotary.yarn(old, new)
        lines += [f"scale {stage} {rotary.scale:.17g}", f"omega {stage} {numbers(rotary.omega.tolist())}"]
    for step in (0, 1, 150, 299, 300, 734, 735, 1102, 1103, 1469, 1470, 1500, 2000, 2195, 2196, 2204, 2205,
                 2220, 2244):
        long = ref.long_window(r, step)
        lines.append(f"schedule {step} {ref.lr_factor(r, step):.17g} {ref.momentum(r, step):.17g} {long // 2} {long}")
    write("yarn.txt", lines)


# ---------------------------------------------------------------------------------------- rounding


def bits_f32(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def from_bits(u):
    return struct.unpack("<f", struct.pack("<I", u))[0]


def awkward_bf16():
    """Ties to even both ways, one ulp beside a tie, carries, subnormals, overflow, infinities."""
    lows = (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
    highs = (0x0000, 0x0001, 0x007F, 0x0080, 0x3F7F, 0x3F80, 0x3F81, 0x4049, 0x7F7E, 0xBF80, 0xC2FF, 0x8000)
    return [h << 16 | l for h in highs for l in lows] + [0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F800000,
                                                         0xFF800000]


def awkward_fp8():
    """Every few representable values of both formats, the ties between them, and their neighbours."""
    values = {0.0, 1e-9, 2.0**-10, 2.0**-9, 2.0**-17, 2.0**-16, 448.0, 449.0, 464.0, 464.01, 480.0, 1e4,
              57344.0, 57345.0, 61440.0, 65536.0, 3e38, float("inf")}
    for dtype, sample in ((torch.float8_e4m3fn, range(0, 0x7E, 3)), (torch.float8_e5m2, range(0, 0x7B, 3))):
        for code in sample:
            a, b = (torch.tensor([c], dtype=torch.uint8).view(dtype).float().item() for c in (code, code + 1))
            tie = (a + b) / 2
            values |= {a, tie, from_bits(bits_f32(tie) + 1), from_bits(bits_f32(tie) - 1)}
    ordered = sorted(values)
    return [v if i % 2 else -v for i, v in enumerate(ordered)]  # alternate signs; -0 is among them


def shaken_bf16(generator):
    """round_bf16 after a few fp32 ulps of noise, except on values that are exact in fp32."""
    def R(x):
        noise = 3e-7 * (2 * torch.rand(x.shape, generator=generator) - 1)
        return low.round_bf16(torch.where(x == x.float(), x, x * (1 + noise)))
    return R


def robust_bits(compute, seed):
    """compute(seed, work, R_sum) for the first seed whose bits do not hang on the order of summation
    or on contraction, which no specification fixes."""
    shaken = shaken_bf16(torch.Generator().manual_seed(0))
    for seed in range(seed, seed + 100):
        result = compute(seed, torch.float32, low.round_bf16)
        others = [compute(seed, torch.float64, R_sum) for R_sum in [low.round_bf16] + [shaken] * 16]
        if all(other == result for other in others):
            return seed, result
    raise AssertionError("no seed without near-ties")


def hash_bf16(shape, seed, scale):
    return low.round_bf16(ref.hashed(shape, seed, scale).float())


ADAM_STEPS, ADAM_ELEMENTS, ADAM_LR = 20, 64, 0.008


def adam_inputs(seed):
    """Elements at many scales; i%16 = 0 never has a gradient, 1 only in the first three steps."""
    i = torch.arange(ADAM_ELEMENTS)
    p = hash_bf16((ADAM_ELEMENTS,), 100 * seed, 0.5)
    grads = []
    for t in range(ADAM_STEPS):
        g = hash_bf16((ADAM_ELEMENTS,), 100 * seed + 1 + t, 1.0) * torch.exp2(-(i // 4).float()).float()
        grads.append(torch.where((i % 16 == 0) | ((i % 16 == 1) & (t >= 3)), 0.0, g))
    return p, grads


def run_adam(seed, work, _):
    p, grads = adam_inputs(seed)
    return [low.bf16_bits(x) for x in low.adam_bf16(p.to(work), [g.to(work) for g in grads], ADAM_LR)]


MUON_STEPS, MUON_LR = 3, 0.03


def muon_inputs(seed):
    p = hash_bf16((6, 12), 100 * seed, 0.5)
    return p, [hash_bf16((6, 12), 100 * seed + 1 + t, 1.0) for t in range(MUON_STEPS)]


def run_normuon(seed, work, R_sum):
    p, grads = muon_inputs(seed)
    momenta = [ref.momentum(Recipe(), t) for t in range(MUON_STEPS)]
    result = low.normuon_bf16(p.to(work), [g.to(work) for g in grads], momenta, MUON_LR, R_sum=R_sum)
    return [low.bf16_bits(x) for x in result]


def make_rounding():
    hexes = lambda values: " ".join(f"{v:04x}" for v in values)
    lines = ["# Bits in hex. bf16 F32 BF16 | fp8 F32 E4M3 E5M2 (saturating conversions)"]
    for u in awkward_bf16():
        lines.append(f"bf16 {u:08x} {low.bf16_bits(torch.tensor([from_bits(u)], dtype=torch.float32))[0]:04x}")
    values = torch.tensor(awkward_fp8(), dtype=torch.float32)
    for v, a, b in zip(values.tolist(), low.fp8_bits(values, torch.float8_e4m3fn), low.fp8_bits(values, torch.float8_e5m2)):
        lines.append(f"fp8 {bits_f32(v):08x} {a:02x} {b:02x}")

    seed, (p, m, v) = robust_bits(run_adam, 900)
    start, grads = adam_inputs(seed)
    assert [low.bf16_bits(x) for x in low.adam_eager(start, grads, ADAM_LR)] == [p, m, v]
    lines += ["# Adam in bf16: adam STEPS ELEMENTS LR BETA1 BETA2 EPS; p before, one line of gradients per",
              "# step, then p, m, v after the last; every operation rounds to bf16 (specification 4.2)",
              f"adam {ADAM_STEPS} {ADAM_ELEMENTS} {ADAM_LR} 0.65 0.95 1e-08",
              f"adam_p0 {hexes(low.bf16_bits(start))}"]
    lines += [f"adam_g {hexes(low.bf16_bits(g))}" for g in grads]
    lines += [f"adam_p {hexes(p)}", f"adam_m {hexes(m)}", f"adam_v {hexes(v)}"]

    seed, (p, m, s) = robust_bits(run_normuon, 950)
    start, grads = muon_inputs(seed)
    lines += ["# NorMuon (turbo4) in bf16 on a 6x12 gate: normuon STEPS ROWS COLS LR WD BETA2; momentum of each",
              "# step; p before, gradients, then p, momentum buffer and second moment (1x12) after the last",
              f"normuon {MUON_STEPS} 6 12 {MUON_LR} 1.2 0.95",
              f"normuon_momentum {numbers([ref.momentum(Recipe(), t) for t in range(MUON_STEPS)])}",
              f"normuon_p0 {hexes(low.bf16_bits(start))}"]
    lines += [f"normuon_g {hexes(low.bf16_bits(g))}" for g in grads]
    lines += [f"normuon_p {hexes(p)}", f"normuon_m {hexes(m)}", f"normuon_s {hexes(s)}"]
    write("rounding.txt", lines)


def main():
    check_reference.run_all()
    for number, (name, recipe) in enumerate(CASES.items(), start=1):
        make_case(number, name, recipe)
    make_ns()
    make_yarn()
    make_rounding()


if __name__ == "__main__":
    main()
