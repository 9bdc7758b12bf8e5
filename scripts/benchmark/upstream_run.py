"""Runs upstream's scripts.base_train with a stopwatch, under upstream's own Python and from its checkout.

Nothing of the training changes. It is watched at four seams and, at the end, one line of JSON is printed: the loss of
every micro-batch (upstream logs a running mean of the last one's), and the seconds of every optimizer step, of every
wait for data, of both validations, and from the start of the process until it could train.

What upstream has no flag for comes by environment, and is absent unless asked for: another seed than its 42
(NANORUN_BENCHMARK_SEED), weights moved by about 1e-7 of themselves before the first step (NANORUN_BENCHMARK_NUDGE, the
seed of that noise), and an end as soon as the checkpoint of a step is written (NANORUN_BENCHMARK_STOP).
"""

import functools
import json
import os
import runpy
import sys
import time

MARK = "nanorun-benchmark: "
NUDGE = 1e-7


class Stopped(Exception):
    """The checkpoint that was asked for is written."""


def asked(name: str) -> int | None:
    value = os.environ.get(f"NANORUN_BENCHMARK_{name}")
    return int(value) if value else None


def vary(seed: int | None, nudge: int | None, stop: int | None) -> None:
    """What upstream has no flag for, put where its training script will look it up."""
    import torch
    from nanochat import checkpoint_manager, gpt

    if seed is not None:
        manual_seed = torch.manual_seed
        torch.manual_seed = lambda _: manual_seed(seed)
    if nudge is not None:
        generator = torch.Generator().manual_seed(nudge)

        def nudged(tensor):
            noise = torch.randn(tensor.shape, generator=generator)
            return tensor.mul_((1 + NUDGE * noise).to(tensor.dtype)) if tensor.is_floating_point() else tensor

        init, load = gpt.GPT.init_weights, checkpoint_manager.load_checkpoint

        def init_weights(self):
            init(self)
            with torch.no_grad():
                for parameter in self.parameters():
                    nudged(parameter)

        def load_checkpoint(*args, **kwargs):
            # A resumed training overwrites what it drew, so that is where the noise must go.
            model, *rest = load(*args, **kwargs)
            for tensor in model.values():
                nudged(tensor)
            return model, *rest

        gpt.GPT.init_weights, checkpoint_manager.load_checkpoint = init_weights, load_checkpoint
    if stop is not None:
        save = checkpoint_manager.save_checkpoint

        def save_checkpoint(directory, step, *args, **kwargs):
            save(directory, step, *args, **kwargs)
            if step == stop:
                raise Stopped

        checkpoint_manager.save_checkpoint = save_checkpoint


def main() -> None:
    # As `python -m` does: upstream's packages are found from its checkout.
    sys.path[0] = os.getcwd()
    import torch
    from nanochat import dataloader, loss_eval
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    steps: list[dict[str, object]] = []
    now: dict[str, object] = {"losses": [], "data": 0.0}
    validations: list[float] = []
    bpb: list[float] = []
    ready: list[float] = []
    cuda = torch.cuda.is_available() and "--device-type=cuda" in sys.argv

    backward = torch.Tensor.backward

    def watched_backward(self, *args, **kwargs):
        # The only backward of the training loop: of a micro-batch's share of the step's mean loss.
        now["losses"].append(self.detach().clone())
        return backward(self, *args, **kwargs)

    torch.Tensor.backward = watched_backward

    def stamp():
        if not cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def before_step(*_):
        now["update"] = stamp()

    def after_step(*_):
        steps.append({"losses": now["losses"], "data": now["data"], "update": (now["update"], stamp())})
        now.update(losses=[], data=0.0)

    register_optimizer_step_pre_hook(before_step)
    register_optimizer_step_post_hook(after_step)

    loader = dataloader.tokenizing_distributed_data_loader_with_state_bos_bestfit

    @functools.wraps(loader)
    def watched_loader(*args, **kwargs):
        batches = loader(*args, **kwargs)
        train = kwargs.get("split") == "train"
        while True:
            started = time.perf_counter()
            batch = next(batches)
            if train and ready:
                now["data"] += time.perf_counter() - started
            elif train:
                ready.append(time.time() - float(os.environ["NANORUN_BENCHMARK_STARTED"]))
            yield batch

    dataloader.tokenizing_distributed_data_loader_with_state_bos_bestfit = watched_loader

    evaluate = loss_eval.evaluate_bpb

    @functools.wraps(evaluate)
    def watched_evaluate(*args, **kwargs):
        started = time.perf_counter()
        found = evaluate(*args, **kwargs)
        validations.append(time.perf_counter() - started)
        bpb.append(float(found))
        return found

    loss_eval.evaluate_bpb = watched_evaluate

    vary(asked("SEED"), asked("NUDGE"), asked("STOP"))
    try:
        runpy.run_module("scripts.base_train", run_name="__main__", alter_sys=True)
    except Stopped:
        pass

    def seconds(pair) -> float:
        return pair[0].elapsed_time(pair[1]) / 1000 if cuda else pair[1] - pair[0]

    print(MARK + json.dumps({
        # Each is a share of the step's mean, so the step's loss is their sum.
        "micro_losses": [[loss.item() for loss in step["losses"]] for step in steps],
        "optimizer_seconds": [seconds(step["update"]) for step in steps],
        "data_seconds": [step["data"] for step in steps],
        "validation_seconds": validations,
        "validation_bpb": bpb,
        "ready_seconds": ready[0],
    }), flush=True)


if __name__ == "__main__":
    main()
