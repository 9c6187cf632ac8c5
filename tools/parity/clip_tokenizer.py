"""Writes the ids that transformers' CLIPTokenizer gives for texts of all kinds.

    TOKENIZER=/tmp/tokenizer cargo test --release -p tweedie --lib -- --ignored write_the_files_of_the_fixture
    python tools/parity/clip_tokenizer.py /tmp/tokenizer > crates/tweedie/tests/data/clip_tokenizer.json

The first command writes a vocabulary of the words in `clip_words.json`; the second loads it in
Python, so that it also shows that Python reads what tweedie writes. Needs transformers.
"""

import json
import random
import sys

import tokenizers
import transformers

TEXTS = [
    "", " ", "   \t\n ", "a", "A", "red", "Red", "RED", " red ", "red.", "red,", "red!", "!red", "!!!", "?!",
    "a red circle", "a  red   circle", "A Red Circle.", "a red circle, and a blue square!",
    "two small green triangles left of a large yellow star", "a crimson disc under a grey ring",
    "redder", "redden", "agreed", "greed", "unknown words here", "antidisestablishmentarianism",
    "it's", "IT'S", "don't", "Don't", "we're they've I'm you'll he'd", "'s", "''s", "'", "''", "rock'n'roll", "o'clock",
    "x-ray", "x - ray", "X-RAY", "dark-blue", "under_score", "a/b\\c", "a+b=c", "100%", "3.14", "1,000,000",
    "12345", "a1b2c3", "42nd", "2x2", "#1", "@home", "user@example.com", "https://example.com/a?b=c&d=e",
    "café", "cafe\u0301", "CAFÉ", "naïve", "NAÏVE", "über", "ÜBER", "straße", "STRASSE", "ÅNGSTRÖM", "İstanbul",
    "雪", "雪の絵", "東京", "こんにちは世界", "안녕하세요", "Привет мир", "ПРИВЕТ", "Ελληνικά", "ΣΊΣΥΦΟΣ", "مرحبا", "שלום", "नमस्ते",
    "🙂", "a 🙂 b", "👩‍👩‍👧", "🇨🇭", "☃", "★ star", "½", "²", "Ⅷ", "①", "ﬁne", "x²", "10½", "٣",
    "\u00a0red\u00a0circle\u00a0", "red\u200bcircle", "red\u2003circle", "red\u3000circle", "zero\u0000byte", "bell\u0007",
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|endoftext|>red", "<|STARTOFTEXT|>", "<| endoftext |>",
    "<b>red</b>", "{red}", "(red) [circle]", "red:1.3", "((red))", "\"red\"", "“red”", "red—blue", "red…",
    "banana abab ababab aaaa aaaaa aaaaaaa", "the " * 30, "red, " * 20, "word " * 100, "é" * 50, "a" * 200,
    "a\u0301\u0323", "\u1e9b\u0323", "ﷺ", "\ud7ff", "\ufeffred", "ǅ", "ß", "ſ", "K", "Ω",
]


def draw(rng):
    pools = ["abcdefghij ", "ABCxyz 0123", "!?.,;:'\"-_ ", "äöüßéè ", "雪月花 ", " \t\n", "🙂☃★ "]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(1, 40)))


rng = random.Random(7)
texts = TEXTS + [draw(rng) for _ in range(40)]
length = 24


def cases(tokenizer):
    out = []
    for text in texts:
        got = tokenizer(text, padding="max_length", max_length=length, truncation=True)
        out.append({"text": text, "ids": got["input_ids"], "mask": got["attention_mask"]})
    return out


folder = sys.argv[1]
plain = transformers.CLIPTokenizer.from_pretrained(folder)
sign = transformers.CLIPTokenizer.from_pretrained(folder, pad_token="!")
assert plain.model_max_length == length and type(plain).__name__ == "CLIPTokenizer"
head = {
    "what": "ids of CLIPTokenizer for a vocabulary of the words in clip_words.json",
    "script": "tools/parity/clip_tokenizer.py",
    "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
    "length": length,
    "vocab_size": len(plain),
}
lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
for key, tokenizer in [("padded_with_the_end", plain), ("padded_with_a_sign", sign)]:
    rows = ",\n".join("  " + json.dumps(c, separators=(",", ":")) for c in cases(tokenizer))
    lines.append(f' "{key}": [\n{rows}\n ]')
print("{\n" + ",\n".join(lines) + "\n}")
