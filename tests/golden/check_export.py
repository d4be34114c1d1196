"""check_export.py EXPORT ITEMS DETAILS POSITIONS [BPE_FOLDER]: HellaSwag's sums of losses by scripts/load_in_torch.py in
float64, ending by ending, against what `generate --hellaswag ITEMS --hellaswag-details DETAILS` wrote.

The rotary tables are rounded to bf16, so a loss depends a little on the position: rows are given those that they have
in sequences of POSITIONS tokens. BPE_FOLDER has GPT-2's encoder.json and vocab.bpe (needs tiktoken); without it, bytes.
"""

import json
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import load_in_torch

torch.set_num_threads(1)
export, items, details, positions = *sys.argv[1:4], int(sys.argv[4])
model = load_in_torch.load(export, torch.float64)
eot, encode = model.c["vocab_size"] - 1, lambda text: list(text.encode())
if len(sys.argv) > 5:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = sys.argv[5]
    ranks = data_gym_to_mergeable_bpe_ranks(f"{folder}/vocab.bpe", f"{folder}/encoder.json")
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    gpt2 = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    encode = gpt2.encode_ordinary

worst, used = 0.0, 0
lines = open(details).read().splitlines()
texts = [line for line in open(items) if line.strip()][: len(lines)]
for text, line in zip(texts, lines, strict=True):
    item, line = json.loads(text), line.split()
    label, sums, counts = int(line[0]), [float(x) for x in line[1:5]], [int(x) for x in line[5:9]]
    assert label == item["label"]
    context, tails = encode(item["ctx"]), [encode(" " + ending) for ending in item["endings"]]
    assert counts == [len(tail) for tail in tails]
    if used + sum(2 + len(context) + n for n in counts) > positions:
        used = 0
    for tail, total in zip(tails, sums, strict=True):
        ids = [eot, eot] + context + tail
        logp = model(ids, used).log_softmax(-1)
        at = torch.arange(len(ids) - len(tail), len(ids))
        exact = -logp[at - 1, torch.tensor(tail)].sum().item()
        worst = max(worst, abs(exact - total) / len(tail))
        used += len(ids)
# Logits of up to 30, with roundings of 2^-24 in some 40 operations a slot of at most 12, and in sums of 512 numbers.
allowed = 2 * 30 * 2.0**-24 * (40 * 12 * 512) ** 0.5
print(f"{len(lines)} items: largest difference {worst:.3g} per token, allowed {allowed:.3g}")
sys.exit(not (lines and worst <= allowed))
