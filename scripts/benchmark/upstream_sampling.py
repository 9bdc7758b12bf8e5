"""Times upstream's Engine, under upstream's own Python and from its checkout. Prints one line of JSON.

Arguments: tag, samples, tokens, prompt. NANOCHAT_DTYPE says what it computes in. Beside that, how fast this process reads
memory: the sum of 1 GiB, on as many threads. Times are of the clock and, with `cpu`, of the processor over all threads: on
a machine that others use too, those can be compared.
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
    reads = [timed(memory.sum) for _ in range(5)]
    del memory
    model, tokenizer, _ = load_model("base", torch.device("cpu"), phase="eval", model_tag=tag)
    engine = Engine(model, tokenizer)
    ids = tokenizer(prompt, prepend="<|bos|>")
    for _ in engine.generate(ids[:2], num_samples=samples, max_tokens=3, temperature=0.0):
        pass
    started, cpu_started = time.perf_counter(), time.process_time()
    stream = engine.generate(ids, num_samples=samples, max_tokens=count, temperature=0.0)
    tokens = [next(stream)[0][0]]
    prefill, cpu_prefill = time.perf_counter() - started, time.process_time() - cpu_started
    tokens += [column[0] for column, _ in stream]
    decode, cpu_decode = time.perf_counter() - started - prefill, time.process_time() - cpu_started - cpu_prefill
    # After the first token the loop has decoded once for each of them, the last included.
    print(json.dumps({
        "threads": torch.get_num_threads(), "prompt_tokens": len(ids),
        "read_bytes_per_second": READ / min(wall for wall, _ in reads),
        "read_bytes_per_cpu_second": READ / min(cpu for _, cpu in reads), "cpu_token_seconds": cpu_decode / len(tokens),
        "tokens": len(tokens), "prefill_seconds": prefill, "token_seconds": decode / len(tokens),
        "text": tokenizer.decode(tokens),
    }))


def timed(f) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    started, cpu_started = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - started, time.process_time() - cpu_started


if __name__ == "__main__":
    main()
