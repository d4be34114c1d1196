#!/usr/bin/env python3
"""./tokenize beside tiktoken's gpt2 on the same text with the same number of threads, in turns.

    make tokenize && bench/tokenize_bench.py SHARD.bin... [--mb 100] [--threads 2] [--rounds 3]

The text is that of the shards' documents. ./tokenize reads it as JSON lines from a file and writes the shards;
tiktoken gets it as strings in memory (encode_ordinary_batch) and returns lists. Both must give the same tokens.
Wall and CPU seconds are printed, for where other programs share the cores.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE + "/../tests/golden")
from gpt2_strings import encoding, folder  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("shards", nargs="+")
parser.add_argument("--mb", type=float, default=100)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()

gpt2 = encoding()
texts, size = [], 0
for path in args.shards:
    tokens = np.fromfile(path, dtype=np.uint16)[512:]
    for document in np.split(tokens, np.flatnonzero(tokens == 50256))[1:]:
        if size < args.mb * 1e6 and len(document) > 1:
            text = gpt2.decode_bytes(document[1:].tolist())
            size += len(text)
            texts.append(text.decode())


def cpu(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def show(name, wall, seconds, n):
    print(f"{name:10} {wall:7.2f} s wall {seconds:7.2f} s CPU {size / wall * 1e-6:7.1f} MB/s "
          f"{size / seconds * 1e-6:7.1f} MB per CPU second, {n} tokens", flush=True)
    return wall, seconds


print(f"{size * 1e-6:.1f} MB in {len(texts)} documents, {args.threads} threads")
walls = {"tokenize": [], "tiktoken": []}
with tempfile.TemporaryDirectory() as work:
    with open(work + "/in.jsonl", "w") as out:
        for text in texts:
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    for i in range(args.rounds):
        before, start = cpu(resource.RUSAGE_CHILDREN), time.time()
        subprocess.run([HERE + "/../tokenize", work + "/in.jsonl", "--jsonl", "text", "-o", f"{work}/{i}", "--vocab",
                        folder(), "--val-fraction", "0", "--threads", str(args.threads)], check=True,
                       stdout=subprocess.DEVNULL)
        wall, used = time.time() - start, cpu(resource.RUSAGE_CHILDREN) - before
        ours = np.fromfile(f"{work}/{i}_train_000001.bin", dtype=np.uint16)[512:]
        walls["tokenize"].append(show("tokenize", wall, used, len(ours)))
        before, start = cpu(resource.RUSAGE_SELF), time.time()
        theirs = gpt2.encode_ordinary_batch(texts, num_threads=args.threads)
        wall, used = time.time() - start, cpu(resource.RUSAGE_SELF) - before
        walls["tiktoken"].append(show("tiktoken", wall, used, sum(map(len, theirs)) + len(theirs)))
        same = np.array_equal(ours, np.concatenate([[50256, *ids] for ids in theirs]))
        print("the same tokens" if same else "DIFFERENT TOKENS", flush=True)
a, b = (min(walls[name]) for name in ("tokenize", "tiktoken"))
print(f"best of {args.rounds}: tokenize {size / a[0] * 1e-6:.1f} MB/s, tiktoken {size / b[0] * 1e-6:.1f} MB/s, "
      f"{b[0] / a[0]:.1f} times (CPU time: {min(x[1] for x in walls['tiktoken']) / min(x[1] for x in walls['tokenize']):.1f})")
