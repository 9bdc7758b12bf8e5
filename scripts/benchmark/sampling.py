"""Sampling of both sides from one model, in turns, and what it shows."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from . import process
from .manifest import Failure
from .nanorun import Nanorun, load_json
from .session import say
from .upstream import DTYPES, HERE, Upstream, tail

HEAD_DIM = 64
LENGTH = 512
VOCABULARY = 4096
# Of the embedded corpus's kind; long enough that prefill is more than starting.
PROMPT = "\n".join(f"Scene {number}. The king, his court, and all the lords of England enter the hall." for number in range(12))
TIMES = ("token_seconds", "prefill_seconds", "cpu_token_seconds")
GOAL_TOKEN = {4: 5.0}  # times upstream's float32, one sample
GOAL_BANDWIDTH = {12: 0.85}  # of the reading speed


class Sampling:
    """Models, and runs of both sides on them."""

    def __init__(self, upstream: Upstream, nanorun: Nanorun, root: Path, tokens: int, repeats: int):
        self.upstream, self.nanorun, self.root, self.tokens, self.repeats = upstream, nanorun, root, tokens, repeats
        self.base, _ = upstream.prepare(sorted((root / "src/data/embedded").glob("*.parquet")), VOCABULARY)

    def depth(self, depth: int, samples: list[int]) -> dict[str, object]:
        """Everything about one depth."""
        self._python("sampling_model.py", [str(depth), str(LENGTH), str(HEAD_DIM)], {})
        model = self.base / "base_checkpoints" / f"d{depth}" / "model_000001.pt"
        rows, reads = [], []
        for count in samples:
            runs: dict[str, list[dict[str, object]]] = {"f32": [], "nanorun": [], "bf16": []}
            for _ in range(self.repeats):
                for side, kept in runs.items():
                    kept.append(self._nanorun(model, count) if side == "nanorun" else self._theirs(side, depth, count))
                    say(f"d{depth}, {count} samples, {side}: {kept[-1]['token_seconds'] * 1e3:.2f} ms a token")
            reads += [run for side in ("f32", "bf16") for run in runs[side]]
            rows.append({
                "samples": count, "same_tokens": runs["nanorun"][0]["text"] == runs["f32"][0]["text"],
                "best": {side: {key: min(run[key] for run in kept) for key in TIMES} for side, kept in runs.items()},
                "prompt_tokens": runs["nanorun"][0]["prompt_tokens"], "runs": runs,
            })
        weights = read_weights(depth)
        forward = min(self._forward(depth, rows[0]["prompt_tokens"]) for _ in range(self.repeats))
        fastest = {key: max(run[key] for run in reads) for key in ("read_bytes_per_second", "read_bytes_per_cpu_second")}
        return {
            "depth": depth, "weight_bytes": weights, **fastest, "read_share": read_share(weights, rows[0]["runs"]),
            "forward_seconds": forward, "rows": rows,
        }

    def _python(self, script: str, arguments: list[str], more: dict[str, str]) -> str:
        command = [str(self.upstream.python), str(HERE / script), *arguments]
        done = process.run(command, cwd=self.upstream.checkout, env=self.upstream.environment(self.base, **more))
        if done.status != 0:
            raise Failure(f"upstream's {script} ended with status {done.status}:\n{tail(done.text)}")
        return done.text

    def _theirs(self, dtype: str, depth: int, count: int) -> dict[str, object]:
        arguments = [f"d{depth}", str(count), str(self.tokens), PROMPT]
        return json.loads(self._python("upstream_sampling.py", arguments, {"NANOCHAT_DTYPE": DTYPES[dtype]}).splitlines()[-1])

    def _nanorun(self, model: Path, count: int) -> dict[str, object]:
        # The processor's time of a whole process, less that of one that draws a single token.
        done, single = self._sample(model, count, self.tokens), self._sample(model, count, 1)
        found = load_json(done.text, "sample")
        # The first token of each comes from the prompt's logits.
        steps = max(1, found["tokens"] // count - 1)
        return {
            "prompt_tokens": found["prompt_tokens"], "prefill_seconds": found["prefill_seconds"],
            "token_seconds": found["decode_seconds"] / steps, "text": found["continuations"][0],
            "cpu_token_seconds": max(0.0, done.cpu_seconds - single.cpu_seconds) / steps,
        }

    def _sample(self, model: Path, count: int, tokens: int) -> process.Finished:
        command = [
            str(self.nanorun.binary), "sample", str(model), f"--commit={self.upstream.commit}", f"--prompt={PROMPT}",
            "--temperature=0", f"--num={count}", f"--max-tokens={tokens}", f"--threads={self.nanorun.threads}",
            "--json", "--quiet",
        ]
        return self.nanorun.call(command)

    def _forward(self, depth: int, tokens: int) -> float:
        """Seconds that the forward of training takes for as many tokens as the prompt has."""
        sets = {
            "model.depth": depth, "model.sequence_len": LENGTH, "train.device_batch_size": 1, "train.total_batch_size": LENGTH,
            "data.tokenizer.path": str(self.base / "tokenizer"),
        }
        command = [
            str(self.nanorun.binary), "bench", str(self.root / "experiments/bench_d4_t512.toml"), "--steps=2", "--json",
            "--quiet", f"--threads={self.nanorun.threads}",
        ]
        command += [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        found = load_json(self.nanorun.call(command).text, "bench")
        seconds = sum(op["seconds"] for op in found["ops"] if op["phase"] == "forward")
        return seconds * tokens / LENGTH


def read_share(weights: int, runs: dict[str, list[dict[str, object]]]) -> float:
    """The share of the reading speed at which weights were read, the median over turns. Each is held against what was
    read just before and after it: a machine's reading speed may halve within minutes, where others use its memory."""
    def share(before: dict[str, float], run: dict[str, float], after: dict[str, float]) -> float:
        read = (before["read_bytes_per_second"] + after["read_bytes_per_second"]) / 2
        return weights / run["token_seconds"] / read

    return statistics.median(map(share, runs["f32"], runs["nanorun"], runs["bf16"]))


def read_weights(depth: int) -> int:
    """Bytes that every decoded token must read: the blocks' matrices and lm_head, in float32."""
    width = depth * 64
    return 4 * (12 * depth * width * width + VOCABULARY * width)


def markdown(found: dict[str, object]) -> str:
    """The table, and how the goals fare."""
    machine = found["machine"]
    text = [
        "# Sampling: nanorun and upstream's Engine", "",
        f"{machine['cpu']}, {machine['cores']} cores, {found['threads']} threads on both sides. Upstream {found['upstream'][:7]}, "
        f"torch {found['python']['torch']}; nanorun {found['nanorun']['commit'][:7]}{' with changes' if found['nanorun']['modified'] else ''}, "
        f"backend cpu, float32. Greedy, {found['tokens']} tokens after a prompt of {found['depths'][0]['rows'][0]['prompt_tokens']}, "
        f"T {LENGTH}, vocabulary {VOCABULARY:,}. The sides take turns; of each the fastest of {found['repeats']} runs counts. CPU is the "
        "processor's time over all threads, which others on the machine lengthen less than the clock's.", "",
        "| depth | samples | nanorun, ms a token | upstream f32 | times | upstream bf16 | times | CPU ms: nanorun | upstream f32 | times | nanorun prefill, ms | upstream f32 | bf16 | tokens |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    goals = []
    for depth in found["depths"]:
        for row in depth["rows"]:
            best = row["best"]
            ms = {side: {key: value * 1e3 for key, value in values.items()} for side, values in best.items()}
            times = {side: best[side]["token_seconds"] / best["nanorun"]["token_seconds"] for side in ("f32", "bf16")}
            text.append(
                f"| {depth['depth']} | {row['samples']} | {ms['nanorun']['token_seconds']:.3f} | {ms['f32']['token_seconds']:.3f} | "
                f"{times['f32']:.2f} | {ms['bf16']['token_seconds']:.3f} | {times['bf16']:.2f} | {ms['nanorun']['cpu_token_seconds']:.3f} | "
                f"{ms['f32']['cpu_token_seconds']:.3f} | {ratio(best, 'cpu_token_seconds'):.2f} | {ms['nanorun']['prefill_seconds']:.1f} | "
                f"{ms['f32']['prefill_seconds']:.1f} | {ms['bf16']['prefill_seconds']:.1f} | {'the same' if row['same_tokens'] else 'OTHERS'} |"
            )
            if row["samples"] == 1 and depth["depth"] in GOAL_TOKEN:
                goals.append(goal(f"depth {depth['depth']}, one sample, times upstream", times["f32"], GOAL_TOKEN[depth["depth"]]))
        one = depth["rows"][0]["best"]["nanorun"]
        wanted = GOAL_BANDWIDTH.get(depth["depth"])
        said = (
            f"depth {depth['depth']}: {depth['weight_bytes'] / 2**20:.1f} MiB of weights a token, "
            f"{depth['weight_bytes'] / one['token_seconds'] / 1e9:.1f} GB/s at best; the share of what was read just before and after, median of the turns"
        )
        goals.append(goal(said, depth["read_share"], wanted))
        goals.append(goal(
            f"depth {depth['depth']}: prefill's speed over that of training's forward", depth["forward_seconds"] / one["prefill_seconds"], 1.0,
        ))
    return "\n".join([*text, "", *goals]) + "\n"


def ratio(best: dict[str, dict[str, float]], key: str) -> float:
    return best["f32"][key] / max(best["nanorun"][key], 1e-9)


def goal(what: str, value: float, wanted: float | None) -> str:
    verdict = "" if wanted is None else f" (goal {wanted:g}: {'reached' if value >= wanted else '**missed**'})"
    return f"- {what}: {value:.2f}{verdict}"
