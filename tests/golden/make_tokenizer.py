#!/usr/bin/env python3
"""Writes tests/golden/tokenizer.txt: what tiktoken's gpt2 makes of the strings in gpt2_strings.py.

    string HEX ID...            the bytes, "-" for none, and their tokens
    run HEX TIMES COUNT HASH    of long runs the number of tokens and the FNV-1a of their ids
"""
import tiktoken
from gpt2_strings import RUNS, STRINGS, encoding


def fnv1a(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        h = (h ^ i) * 0x100000001B3 % 2**64
    return h


gpt2 = encoding()
print(f"# tiktoken {tiktoken.__version__}; tests/golden/make_tokenizer.py wrote this")
for text in dict.fromkeys(STRINGS):
    print("string", text.encode().hex() or "-", *gpt2.encode_ordinary(text))
for unit, times in RUNS:
    ids = gpt2.encode_ordinary(unit * times)
    print("run", unit.encode().hex(), times, len(ids), f"{fnv1a(ids):016x}")
