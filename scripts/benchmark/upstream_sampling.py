"""Times upstream's Engine, under upstream's own Python and from its checkout. Prints one line of JSON.

Arguments: tag, samples, tokens, prompt. NANOCHAT_DTYPE says what it computes in. Beside that, how fast this process reads
memory: the sum of 1 GiB, on as many threads.
"""

import json
import os
import sys
import time

READ = 1 << 30


def main() -> None:
    sys.path[0] = os.getcwd()
    import torch
    from nanochat.checkpoint_manager import load_model
    from nanochat.engine import Engine

    tag, samples, count, prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    # torch takes its number from OMP_NUM_THREADS.
    memory = torch.ones(READ // 4)
    best = min(timed(memory.sum) for _ in range(5))
    del memory
    model, tokenizer, _ = load_model("base", torch.device("cpu"), phase="eval", model_tag=tag)
    engine = Engine(model, tokenizer)
    ids = tokenizer(prompt, prepend="<|bos|>")
    for _ in engine.generate(ids[:2], num_samples=samples, max_tokens=3, temperature=0.0):
        pass
    started = time.perf_counter()
    stream = engine.generate(ids, num_samples=samples, max_tokens=count, temperature=0.0)
    tokens = [next(stream)[0][0]]
    prefill = time.perf_counter() - started
    tokens += [column[0] for column, _ in stream]
    decode = time.perf_counter() - started - prefill
    # After the first token the loop has decoded once for each of them, the last included.
    print(json.dumps({
        "threads": torch.get_num_threads(), "read_bytes_per_second": READ / best, "prompt_tokens": len(ids),
        "tokens": len(tokens), "prefill_seconds": prefill, "token_seconds": decode / len(tokens),
        "text": tokenizer.decode(tokens),
    }))


def timed(f) -> float:
    started = time.perf_counter()
    f()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
