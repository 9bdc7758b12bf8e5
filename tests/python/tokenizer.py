"""Loads a directory that `nanorun tokenizer train` wrote as upstream does, with tiktoken and torch.

    tokenizer.py DIR ENCODINGS.json

ENCODINGS are texts and ids of the vocabulary that the embedded corpus gives at 4096 tokens; nanorun's own tests hold
its encoder to the same file.
"""

import json
import pathlib
import pickle
import sys

directory, encodings = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
with open(directory / "tokenizer.pkl", "rb") as file:
    encoding = pickle.load(file)
texts = json.loads(encodings.read_text(encoding="utf-8"))
assert len(texts) > 60
for case in texts:
    ids = encoding.encode_ordinary(case["text"])
    assert ids == case["ids"], (case["text"], ids)
    assert encoding.decode(ids) == case["text"]
assert encoding.n_vocab == 4096, encoding.n_vocab
assert encoding.encode_single_token("<|bos|>") == 4087
print(f"tiktoken: {len(texts)} texts have the same ids")

try:
    import torch
except ImportError:
    print("torch: not here; the bytes of token_bytes.pt are compared with torch's own in nanorun's tests")
    sys.exit()
with open(directory / "token_bytes.pt", "rb") as file:
    found = torch.load(file, map_location="cpu")
special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
expected = [0 if id in special else len(encoding.decode_single_token_bytes(id)) for id in range(encoding.n_vocab)]
assert found.dtype == torch.int32 and found.tolist() == expected
print(f"torch {torch.__version__}: token_bytes.pt is upstream's")
