#!/usr/bin/env python3
"""Microseconds and errors of our orthogonalisation beside its peers, on one GPU in one run.

    make lib && python3 bench/peers.py [--csv FILE] [--errors] [--shapes 22x768x3072,40x768x768]

Times are medians of CUDA-graph replays over inputs that together exceed the L2 cache; bf16 in, the method's storage
out, the norm and the cast included. Peers: torch.compile of the plain iteration; torch.optim.Muon's own, a matrix at
a time as that optimizer calls it; the package gram-newton-schulz where it is installed. --errors adds the polar error
|Y - UV^T| / |UV^T| against an fp64 singular value decomposition on inputs that are not all Gaussian.
Where gram-newton-schulz is in a folder of PYTHONPATH, that needs the folder's nvidia_cutlass_dsl/python_packages, too.
Without a GPU everything runs on the CPU at a small size, which checks the script itself.
"""

import argparse
import csv
import ctypes
import math
import os
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
from orthogonalize_torch import DT_BF16, DT_F16, find_method, lib, orthogonalize_floats  # noqa: E402

POLAR_EXPRESS = [(8.156554524902461, -22.48329292557795, 15.878769915207462),
                 (4.042929935166739, -2.808917465908714, 0.5000178451051316),
                 (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                 (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                 (2.3465413258596377, -1.7097828382687081, 0.42323551169305323)]
SHAPES = "22x768x3072,40x768x768,1x768x3072,1x2048x2048,1x2048x8192,1x4096x4096,1x8192x8192"
OURS = ["turbo4", "turbo4/none", "turbo-gram4", "s4-gram4", "s4-gram5", "polar5"]
REPLAYS = 20


def iterate(x, a, coefficients):
    """The standard iteration from A = X X^T on; X is bf16."""
    for k, (p, q, r) in enumerate(coefficients):
        if k:
            a = x @ x.mT
        x = p * x + (q * a + r * (a @ a)) @ x
    return x


def polar5(g):
    x = g / (g.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    return iterate(x, x @ x.mT, POLAR_EXPRESS)


def turbo4(g):
    a = g @ g.mT
    s = torch.rsqrt(a.abs().sum(-1, keepdim=True, dtype=torch.float32) * 1.02 + 1e-6).to(g.dtype)
    return iterate(s * g, s * a * s.mT, POLAR_EXPRESS[1:])


def torch_muon(g):
    """torch.optim.Muon's: a matrix at a time, five iterations of Jordan's coefficients."""
    from torch.optim._muon import _zeropower_via_newtonschulz
    return torch.stack([_zeropower_via_newtonschulz(x, (3.4445, -4.7750, 2.0315), 5, 1e-7) for x in g])


def ours(name):
    """The method, or with /none its iterations without a normaliser, as a function of a (batch, m, n) tensor."""
    method, error = find_method(name.split("/")[0]), ctypes.create_string_buffer(1024)
    if name.endswith("/none"):
        lib.ns_method_set_norm(method, b"none", error)
    half = b"f16" in describe(method)

    def run(g):
        batch, m, n = g.shape
        if not g.is_cuda:
            floats = (ctypes.c_float * g.numel())(*g.float().flatten().tolist())
            for i in range(batch):
                one = (ctypes.c_float * (m * n)).from_buffer(floats, 4 * m * n * i)
                orthogonalize_floats(one, m, n, method)
            return torch.tensor(list(floats)).view(batch, m, n)
        out = torch.empty_like(g, dtype=torch.float16 if half else torch.bfloat16)
        work = torch.empty(lib.ns_workspace_size_cuda(method, batch, m, n), dtype=torch.uint8, device=g.device)
        stream = torch.cuda.current_stream().cuda_stream
        status = lib.ns_orthogonalize_to_cuda(method, ctypes.c_void_p(out.data_ptr()), DT_F16 if half else DT_BF16,
                                              ctypes.c_void_p(g.data_ptr()), DT_BF16, False, batch, m, n,
                                              ctypes.c_void_p(work.data_ptr()), ctypes.c_void_p(stream))
        if status:
            raise ValueError(f"{name} refused {tuple(g.shape)}")
        return out
    return run


def describe(method):
    text = ctypes.create_string_buffer(256)
    lib.ns_method_describe(method, text, ctypes.c_size_t(256))
    return text.value


def peers():
    found = {"torch.compile polar5": torch.compile(polar5, dynamic=False),
             "torch.compile turbo4": torch.compile(turbo4, dynamic=False)}
    try:
        from torch.optim._muon import _zeropower_via_newtonschulz  # noqa: F401
        found["torch.optim.Muon"] = torch_muon
    except ImportError:
        print("skip torch.optim.Muon: this PyTorch has none")
    try:
        from gram_newton_schulz import GramNewtonSchulz, POLAR_EXPRESS_COEFFICIENTS
        # Five iterations in fp16, restarted after the second; the standard loop for square matrices. Its default mode
        # of compiling makes CUDA graphs of its own, which cannot be captured into ours.
        found["gram-newton-schulz"] = GramNewtonSchulz(ns_coefficients=POLAR_EXPRESS_COEFFICIENTS,
                                                       compile_kwargs={"fullgraph": True, "dynamic": False})
    except Exception as e:  # its kernels import a stack of their own
        print(f"skip gram-newton-schulz: {e}")
    return found


def microseconds(f, inputs):
    if not inputs[0].is_cuda:
        started = time.perf_counter()
        f(inputs[0])
        return 1e6 * (time.perf_counter() - started)
    stream = torch.cuda.Stream()
    graphs = []
    with torch.cuda.stream(stream):
        for _ in range(2):
            f(inputs[0])
        for x in inputs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                f(x)
            graphs.append(graph)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(REPLAYS + 1)]
        for graph in graphs:
            graph.replay()
        marks[0].record()
        for i in range(REPLAYS):
            graphs[i % len(graphs)].replay()
            marks[i + 1].record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(marks[i].elapsed_time(marks[i + 1]) for i in range(REPLAYS))


def samples(m, n, device):
    """One matrix of every kind: a name and (m, n) in fp64."""
    g = torch.Generator(device="cpu").manual_seed(1)
    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(device)

    def levy(alpha):  # Chambers, Mallows and Stuck's symmetric stable numbers
        v = (torch.rand(m, n, generator=g, dtype=torch.float64).to(device) - 0.5) * math.pi
        w = -torch.log1p(-torch.rand(m, n, generator=g, dtype=torch.float64).to(device))
        return (torch.sin(alpha * v) / torch.cos(v) ** (1 / alpha)
                * (torch.cos((1 - alpha) * v) / w) ** ((1 - alpha) / alpha))
    yield "gaussian", normal(m, n)
    yield "levy 1.0", levy(1.0)
    yield "levy 1.5", levy(1.5)
    yield "rows scaled", normal(m, n) * torch.exp(normal(m, 1))
    yield "columns scaled", normal(m, n) * torch.exp(normal(1, n))
    rank = max(1, m // 12)
    yield "low rank + noise", normal(m, rank) @ normal(rank, n) / rank ** 0.5 + 0.03 * normal(m, n)


def error_table(functions, shapes, device):
    print("polar error             " + "".join(f"{name:>22}" for name in functions))
    for m, n in shapes:
        for kind, g in samples(m, n, device):
            u, _, vt = torch.linalg.svd(g, full_matrices=False)
            exact = u @ vt
            x = (g / g.norm() * 8).to(torch.bfloat16)[None]
            errors = [(f(x)[0].double() - exact).norm() / exact.norm() for f in functions.values()]
            print(f"{m}x{n} {kind:<16}" + "".join(f"{float(e):>22.4f}" for e in errors), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", help="also write the times there")
    parser.add_argument("--errors", action="store_true", help="polar errors instead of times")
    parser.add_argument("--shapes", default=SHAPES, help="batch x m x n, comma-separated")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and hasattr(lib, "ns_orthogonalize_to_cuda") else "cpu"
    shapes = [tuple(map(int, s.split("x"))) for s in args.shapes.split(",")] if device == "cuda" else [(2, 24, 40)]
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", "torch", torch.__version__)
    functions = {name: ours(name) for name in OURS}
    if args.errors:
        error_table({**{name: f for name, f in functions.items() if "/" not in name}, "plain turbo4": turbo4, "plain polar5": polar5},
                    [(768, 3072), (768, 768)] if device == "cuda" else [(24, 40)], device)
        return
    functions = {**functions, **peers()}
    rows = []
    print(f"{'batch x m x n':<16}{'method':<24}{'us':>10}")
    for batch, m, n in shapes:
        size = 2 * batch * m * n
        # Singular values below 1, where iterations without a normaliser stay finite.
        inputs = [(torch.randn(batch, m, n, device=device) / (m ** 0.5 + n ** 0.5)).to(torch.bfloat16)
                  for _ in range(1 if device == "cpu" else max(1, min(8, 100_000_000 // size + 1)))]
        for name, f in functions.items():
            try:
                us = microseconds(f, inputs)
            except Exception as e:  # a peer's failure is no reason to lose the others' times
                if name in OURS:
                    raise
                print(f"{name}: {(str(e).splitlines() or [repr(e)])[0][:100]}")
                continue
            rows.append((batch, m, n, name, round(us, 1)))
            print(f"{batch:>2} x {m:>4} x {n:>4}  {name:<24}{us:>10.1f}", flush=True)
    if args.csv:
        with open(args.csv, "w", newline="") as f:
            csv.writer(f).writerows([("batch", "m", "n", "method", "us"), *rows])


if __name__ == "__main__":
    main()
