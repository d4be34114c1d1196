"""A model that `./generate --export FOLDER` wrote, in plain PyTorch: load(FOLDER)(ids) gives logits.

As a program: load_in_torch.py FOLDER ID ID ... prints the likeliest tokens after those.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F

TYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}


def read_safetensors(path, dtype):
    data = bytearray(open(path, "rb").read())
    first = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:first])
    header.pop("__metadata__", None)
    place = lambda t: {"count": math.prod(t["shape"]), "offset": first + t["data_offsets"][0]}
    tensor = lambda t: torch.frombuffer(data, dtype=TYPES[t["dtype"]], **place(t)).reshape(t["shape"])
    return {name: tensor(t).to(dtype) for name, t in header.items()}


class Model:
    def __init__(self, folder, dtype=torch.float32):
        self.c = json.load(open(f"{folder}/config.json"))
        self.w = read_safetensors(f"{folder}/model.safetensors", dtype)
        self.dtype = dtype

    def norm(self, x):
        return x * (x.square().mean(-1, keepdim=True) + self.c["norm_eps"]).rsqrt()

    def attention(self, i, slot, a, ids, start, first):
        c, w, at = self.c, self.w, f"blocks.{i}.attn."
        t, h, d = len(ids), c["heads"], c["head_dim"]
        p = torch.arange(t)
        omega = torch.tensor(c["rotary_frequencies"], dtype=torch.float64)
        angle = torch.outer(first + p.double(), F.pad(omega, (0, d // 2 - len(omega))))[:, None]
        cos, sin = angle.cos(), angle.sin()
        if c["rotary_bf16"]:  # the tables are rounded: the angle to fp32, its functions to bf16
            cos, sin = (f(angle.float().double()).float().bfloat16() for f in (torch.cos, torch.sin))
        cos, sin = cos.to(self.dtype), sin.to(self.dtype)

        def rotate(x):
            x1, x2 = self.norm(x).chunk(2, -1)
            return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], -1)

        q, k, v = ((a @ w[at + n].T).view(t, h, d) for n in "qkv")
        v = w[at + "v_lambdas"][0] * v
        if slot["value_embed"] >= 0:
            v = v + w[at + "v_lambdas"][1] * w[f"value_embeds.{slot['value_embed']}"][ids].view(t, h, d)
        seen = (p <= p[:, None]) & (p >= p[:, None] - c["window_" + slot["attention"]]) & (p >= start[:, None])
        score = c["attention_scale"] * torch.einsum("phc,jhc->hpj", rotate(q), rotate(k))
        y = torch.einsum("hpj,jhc->phc", score.masked_fill(~seen, -torch.inf).softmax(-1), v)
        gate = torch.sigmoid(a[:, : c["gate_channels"]] @ w[at + "gate"].T)
        return (y * gate[:, :, None]).reshape(t, -1) @ w[at + "o"].T

    def __call__(self, ids, first=0):
        """Logits (T, padded vocabulary) of one sequence from position `first`; the last id begins a document."""
        c, w, ids = self.c, self.w, torch.as_tensor(ids)
        start = torch.where(ids == c["vocab_size"] - 1, torch.arange(len(ids)), 0).cummax(0).values
        e = w["embed"][ids]
        z = torch.sigmoid(e[1:, : c["gate_channels"]] @ w["smear.gate"])
        x = x0 = self.norm(torch.cat([e[:1], e[1:] + w["smear.lambda"] * z[:, None] * e[:-1]]))
        out = {}
        for i, slot in enumerate(c["slots"]):
            if not slot["executed"]:
                continue
            at = f"blocks.{i}."
            if slot["skip_from"] >= 0:
                x = x + torch.sigmoid(w[at + "skip_gate"]) * out[slot["skip_from"]]
            x = w[at + "lambdas"][0] * x + w[at + "lambdas"][1] * x0
            if slot["attention"]:
                x = x + self.attention(i, slot, self.norm(x), ids, start, first)
            if slot["mlp"]:
                x = x + F.relu(self.norm(x) @ w[at + "mlp.c_fc"]).square() @ w[at + "mlp.c_proj"].T
            out[i] = x
        back = next(out[i] for i, slot in enumerate(c["slots"]) if slot["backout"])
        logits = self.norm(x - w["backout.lambda"] * back) @ w["lm_head"].T
        return c["softcap"] * torch.sigmoid(logits / c["softcap_div"])


load = Model


if __name__ == "__main__":
    model = load(sys.argv[1])
    best = model([int(i) for i in sys.argv[2:]])[-1, : model.c["vocab_size"]].topk(5)
    print("\n".join(f"{i} {v:.4f}" for v, i in zip(best.values.tolist(), best.indices.tolist())))
