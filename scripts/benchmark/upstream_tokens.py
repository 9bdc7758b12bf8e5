"""Times upstream's tokenizer, under upstream's own Python and from its checkout: training by rustbpe, encoding by tiktoken.

Arguments: vocabulary size, threads, rows of a batch, tokens of a row. Prints one line of JSON. The fastest of three counts, as in `nanorun bench --data`.
"""

import json
import os
import sys
import time

PACKED = 1 << 17  # tokens, as in `nanorun bench --data`


def fastest(f) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    sys.path[0] = os.getcwd()
    vocab_size, threads, rows, length = (int(argument) for argument in sys.argv[1:5])
    from nanochat.dataloader import tokenizing_distributed_data_loader_bos_bestfit as loader
    from nanochat.dataset import parquets_iter_batched
    from nanochat.tokenizer import RustBPETokenizer, get_tokenizer

    def texts():
        # As scripts.tok_train: documents cut at 10,000 characters.
        for batch in parquets_iter_batched(split="train"):
            for text in batch:
                yield text[:10_000]

    train = fastest(lambda: RustBPETokenizer.train_from_iterator(texts(), vocab_size))
    tokenizer = get_tokenizer()
    documents = [text for batch in parquets_iter_batched(split="train") for text in batch]
    bos = tokenizer.get_bos_token_id()
    encoded: list = []

    def encode():
        encoded[:] = tokenizer.encode(documents, prepend=bos, num_threads=threads)

    encoding = fastest(encode)
    batches = -(-PACKED // (rows * length))
    started = time.perf_counter()
    made = loader(tokenizer, rows, length, split="train", device="cpu")
    for _ in range(batches):
        next(made)
    packing = time.perf_counter() - started
    print(json.dumps({
        "threads": threads,
        "bytes": sum(len(text.encode("utf-8")) for text in documents),
        "tokens": sum(len(ids) for ids in encoded),
        "tokenizer_train_seconds": train,
        "encode_seconds": encoding,
        "packed_tokens_per_second": rows * length * batches / packing,
    }))


if __name__ == "__main__":
    main()
