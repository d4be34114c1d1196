#!/usr/bin/env python3
"""Orthogonalises a PyTorch tensor in place with libturbomuon.so (make lib); without PyTorch, a list of floats.

    python3 scripts/orthogonalize_torch.py [METHOD]

TURBOMUON_LIB names a library elsewhere than in the folder above this one.
"""
import ctypes
import os
import random
import sys

lib = ctypes.CDLL(os.environ.get("TURBOMUON_LIB") or
                  os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "libturbomuon.so"))
DT_F32, DT_BF16, DT_F16 = 1, 2, 3  # ops/dtype.h
for name in "ns_method_size", "ns_workspace_size", "ns_workspace_size_cuda":
    if hasattr(lib, name):
        getattr(lib, name).restype = ctypes.c_size_t


def find_method(name):
    method, error = ctypes.create_string_buffer(lib.ns_method_size()), ctypes.create_string_buffer(1024)
    lib.ns_method_find.restype = ctypes.c_bool
    if not lib.ns_method_find(method, name.encode(), error):
        raise ValueError(error.value.decode())
    return method


def orthogonalize(x, method):
    """x: (batch, m, n) or (m, n), a contiguous CUDA tensor; on the tensor's current stream, without a wait."""
    import torch
    if not (x.is_cuda and x.is_contiguous()):
        raise ValueError("the tensor must be on a GPU and contiguous")
    dtype = {torch.float32: DT_F32, torch.bfloat16: DT_BF16, torch.float16: DT_F16}[x.dtype]
    batch, (m, n) = x.numel() // (x.shape[-1] * x.shape[-2]), x.shape[-2:]
    work = torch.empty(lib.ns_workspace_size_cuda(method, batch, m, n), dtype=torch.uint8, device=x.device)
    stream = torch.cuda.current_stream(x.device).cuda_stream
    status = lib.ns_orthogonalize_cuda(method, ctypes.c_void_p(x.data_ptr()), dtype, batch, m, n,
                                       ctypes.c_void_p(work.data_ptr()), ctypes.c_void_p(stream))
    if status:
        raise ValueError(f"cannot orthogonalise {tuple(x.shape)} {x.dtype}")
    return x


def orthogonalize_floats(x, m, n, method):
    """x: an array of m n ctypes.c_float, on the CPU."""
    work = ctypes.create_string_buffer(lib.ns_workspace_size(method, 1, m, n, ctypes.c_size_t(4)))
    return lib.ns_orthogonalize_f32(method, x, 1, m, n, work, 1)


if __name__ == "__main__":
    try:
        method = find_method(sys.argv[1] if len(sys.argv) > 1 else "turbo5")
    except ValueError as e:
        sys.exit(f"error: {e}")
    try:
        import torch
        cuda = torch.cuda.is_available() and hasattr(lib, "ns_orthogonalize_cuda")
    except ImportError:
        cuda = False
    if cuda:
        y = orthogonalize(torch.randn(4, 768, 3072, device="cuda", dtype=torch.bfloat16), method).float()
        off = (y @ y.mT - torch.eye(768, device="cuda")).norm() / (4 * 768) ** 0.5
    else:
        m, n = 64, 256
        x = (ctypes.c_float * (m * n))(*(random.gauss(0, 1) for _ in range(m * n)))
        orthogonalize_floats(x, m, n, method)
        rows = [x[i * n:(i + 1) * n] for i in range(m)]
        off = sum((sum(a * b for a, b in zip(p, q)) - (i == j)) ** 2
                  for i, p in enumerate(rows) for j, q in enumerate(rows)) ** 0.5 / m ** 0.5
    print(f"|Y Y^T - I| / sqrt(m): {float(off):.3f} on the {'GPU' if cuda else 'CPU'}")
