"""GPT-2's encoding in tiktoken, from the published files, and the strings that tests ask it about."""
import os
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

PATTERN = (r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""")


def folder():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    for path in (root + "/data/gpt2_bpe", root + "/../shared/data/gpt2_bpe"):
        if os.path.exists(path + "/vocab.bpe"):
            return path
    raise SystemExit("error: no GPT-2 vocabulary: data/fetch_gpt2_bpe.sh fetches it")


def encoding():
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=folder() + "/vocab.bpe",
                                            encoder_json_file=folder() + "/encoder.json")
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks,
                             special_tokens={"<|endoftext|>": 50256})


SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
                           0x202F, 0x205F, 0x3000)]
NOT_SPACES = ["\x1c", "\x1d", "\x1e", "\x1f", "\u180e", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\0"]

STRINGS = [chr(c) for c in range(256)]  # every byte of ASCII, and Latin-1
# contractions, in their case, out of it, at ends, after spaces, doubled, with the wrong apostrophe
for tail in ("s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "VE", "M", "LL", "D", "l", "r", "v", "x", ""):
    STRINGS += [f"we'{tail}", f"'{tail}", f" '{tail}", f"''{tail}", f"a'{tail}b", f"9'{tail} ", f"we\u2019{tail}"]
# spaces of each kind: alone, twice, before and after a word, a number, a sign, at the end
for s in SPACES + NOT_SPACES:
    STRINGS += [f"a{s}b", f"a{s}{s}b", f"{s} a", f" {s}a", f"a {s}", f"1{s} 2", f"!{s}?", f"{s}{s}{s}"]
STRINGS += [
    "", " ", "  ", "   ", " " * 16, " " * 17, "\n\n", "\r\n", "\r\n\r\n", "a\r\nb", "a \r\n b", "\n \n", " \n", "\n ",
    "a \n", "a\n ", "\t\tif (x)\n\t\t\treturn;\n", "    four", "     five", "trailing   ", "a  b   c    d",
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext", "|>", "Hello, world!", "don't won't I'm you're they've he'll she'd",
    "3.14159", "1,000,000", "2nd", "x86_64", "\u00bd cup", "\u2167", "\u0661\u0662\u0663", "\u4e00\u4e8c\u4e09", "\u00b2\u00b3",
    "e\u0301", "\u00e9", "a\u0300\u0301\u0302b", " \u0301", "\u0301", "n\u0303o", "\u0915\u094d\u0937\u093f", "\u0e33",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd",
    "\u2764\ufe0f", "1\ufe0f\u20e3", " \U0001f600 \U0001f600", "\U0001f600a", "\u65e5\u672c\u8a9e", "\u65e5 \u672c", "\uac00\ub098\ub2e4",
    "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\u202eabc\u202c", "\u0420\u0443\u0441\u0441\u043a\u0438\u0439", "\u0130\u0131\u017f\u212a",
    "\ufb01\ufb02", "\uff21\uff22\uff11", "\U0001d400\U0001d7ce", "\U00020000", "\U0010ffff", "\ue000", "\uffff", "\ufffd", "\ufffd\ufffdx",
    "\ud7ff\ue000", "\x7f", "\x80\x81", "\xad", "soft\xadhyphen", "zero\u200bwidth", "\ufeffbom", "nul\0inside", "tab\tin", "\x1b[31mred\x1b[0m",
    "https://example.com/a?b=c&d=e#f", "user@example.com", "C:\\path\\file", "a_b_c", "__init__", "--option=value", "$100", "100%",
    "#include <stdio.h>", "int main(void) { return 0; }", "x+=1;", "a<b>c", "((()))", "[[]]", "{}", "....", "...a", "!!!???", "a!b?c",
    "SolidGoldMagikarp", " SolidGoldMagikarp", "rawdownload", "\u00c3\u00c2\u00c3\u00c2", "antidisestablishmentarianism",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "Donaudampfschifffahrtsgesellschaftskapit\u00e4n",
    "\U00010ec2 \U000105c0 \U00011bc0 \ua7cb",  # letters of Unicode 15 and 16
    "\u088f \U00010940 \U00016ea0 \U000323b0",  # assigned in Unicode 17: not letters
]
# A unit, and how often it is repeated; tests keep a hash of their tokens.
RUNS = [("a", 100000), (" ", 100000), ("\n", 70001), ("ab", 5001), ("aaab", 3000), ("-", 4097), ("=", 64), ("=", 65), ("-", 384), ("=", 385),
        ("0", 1000), ("\u00e9", 999), ("\U0001f600", 333), ("the", 777), ("\u3000", 1000), ("ha", 33), ("etaoinshrdlu", 999)]
