#!/usr/bin/env python3
"""./tokenize beside tiktoken's gpt2, where tiktoken is installed: the class of every code point, every
string of tests/golden/gpt2_strings.py, random Unicode, every single byte, and the text of token shards.

    make tokenize && tests/tokenizer_vs_tiktoken.py [SHARD.bin...]

Documents go through ./tokenize as JSON lines, single bytes as files; a document without text is left out there.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE + "/golden")
from gpt2_strings import NOT_SPACES, RUNS, SPACES, STRINGS, encoding, folder  # noqa: E402

gpt2 = encoding()
failed = 0


def read_shard(path):
    tokens = np.fromfile(path, dtype=np.uint16)[512:]
    starts = np.flatnonzero(tokens == 50256)
    return [d[1:].tolist() for d in np.split(tokens, starts)[1:]]


def tokenize(texts):
    with tempfile.TemporaryDirectory() as work:
        with open(work + "/in.jsonl", "w") as out:
            for text in texts:
                out.write(json.dumps({"text": text}) + "\n")
        subprocess.run([HERE + "/../tokenize", work + "/in.jsonl", "--jsonl", "text", "-o", work + "/x", "--vocab",
                        folder(), "--val-fraction", "0"], check=True, stdout=subprocess.DEVNULL)
        return read_shard(work + "/x_train_000001.bin")


def tokenize_bytes():
    with tempfile.TemporaryDirectory() as work:
        names = [f"{work}/{byte}" for byte in range(256)]
        for byte, name in enumerate(names):
            with open(name, "wb") as out:
                out.write(bytes([byte]))
        subprocess.run([HERE + "/../tokenize", *names, "-o", work + "/x", "--vocab", folder(), "--val-fraction", "0"],
                       check=True, stdout=subprocess.DEVNULL)
        return read_shard(work + "/x_train_000001.bin")


def compare(name, texts, expected=None):
    global failed
    texts = [t for t in texts if t]
    expected = expected or gpt2.encode_ordinary_batch(texts, num_threads=2)
    got = tokenize(texts)
    bad = [t for t, a, b in zip(texts, got, expected) if a != b]
    good = not bad and len(got) == len(expected)
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {name}: {len(texts)} documents, {sum(map(len, expected))} tokens", *map(repr, bad[:3]))


def random_text(r):
    def character():
        kind = r.randrange(10)
        if kind < 3:
            return r.choice(" \n\t'sdmtlvre")
        if kind < 5:
            return r.choice(SPACES + NOT_SPACES)
        if kind < 8:
            return r.choice(["ll", "hello", "the", " world", "123", "!?", "'re", "   ", "Don't", "\u0301"])
        return chr(r.choice([r.randrange(1, 0x80), r.randrange(0x80, 0x800), r.randrange(0x800, 0xD800),
                             r.randrange(0xE000, 0x110000)]))

    return "".join(character() for _ in range(r.randrange(1, 60)))


r = random.Random(1)
# In "a" + c + "a1" + c + "1 " + c the words, hence the tokens, tell c's class.
codes = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
compare("every code point", [f"a{c}a1{c}1!{c}! {c} {c}{c}" for c in codes])
compare("nasty strings", STRINGS + [unit * times for unit, times in RUNS])
compare("random Unicode", [random_text(r) for _ in range(200000)])
same = tokenize_bytes() == [[gpt2.encode_single_token(bytes([byte]))] for byte in range(256)]
failed += not same
print("ok  " if same else "FAIL", "every single byte")
for path in sys.argv[1:]:
    ids = [d for d in read_shard(path) if d]
    texts = [gpt2.decode_bytes(d).decode("utf-8", "strict") for d in ids]
    compare(path, texts, ids)
print(f"{4 + len(sys.argv) - 1 - failed} passed, {failed} failed")
sys.exit(failed > 0)
