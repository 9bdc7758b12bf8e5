"""Loads a run that nanorun exported with upstream's own code, evaluates it and trains it on.

    python upstream_export.py NANOCHAT BASE SHARDS ROWS STEPS PROMPT...

Prints JSON: bits per byte over the validation split, greedy tokens of each prompt, and the loss of every step of training on
from the checkpoint. ROWS is the device batch.
"""

import json
import os
import runpy
import sys
from pathlib import Path

nanochat, base, shards, rows, steps, *prompts = sys.argv[1:]
rows, steps = int(rows), int(steps)
os.environ.update(NANOCHAT_BASE_DIR=base, TORCHDYNAMO_DISABLE="1", WANDB_MODE="disabled")
os.chdir(nanochat)
sys.path.insert(0, nanochat)
data = Path(base) / "base_data_climbmix"
if not data.exists():
    data.symlink_to(shards)

import torch  # noqa: E402

from nanochat import gpt, optim  # noqa: E402
from nanochat.checkpoint_manager import load_model  # noqa: E402
from nanochat.dataloader import tokenizing_distributed_data_loader_bos_bestfit as loader  # noqa: E402
from nanochat.engine import Engine  # noqa: E402
from nanochat.loss_eval import evaluate_bpb  # noqa: E402
from nanochat.tokenizer import get_token_bytes  # noqa: E402

torch.compile = lambda model, **_: model
device = torch.device("cpu")
model, tokenizer, meta = load_model("base", device, phase="eval")
flags, length = meta["user_config"], meta["model_config"]["sequence_len"]
batches = flags["eval_tokens"] // (rows * length)
split = loader(tokenizer, rows, length, split="val", device=device)
with torch.inference_mode():
    bpb = evaluate_bpb(model, split, batches, get_token_bytes(device=device))
engine, texts = Engine(model, tokenizer), []
for prompt in prompts:
    ids = tokenizer(prompt, prepend="<|bos|>")
    found, _ = engine.generate_batch(ids, num_samples=1, max_tokens=16, temperature=0)
    texts.append(tokenizer.decode(found[0][len(ids) :]))

losses, of_step = [], []
micro_batches = meta["total_batch_size"] // (rows * length)
forward, update = gpt.GPT.forward, optim.MuonAdamW.step


def heard(self, idx, targets=None, *args, **kwargs):
    loss = forward(self, idx, targets, *args, **kwargs)
    if self.training and targets is not None:
        losses.append(loss.item())
    return loss


def stepped(self, *args, **kwargs):
    update(self, *args, **kwargs)
    of_step.append(sum(losses[-micro_batches:]) / micro_batches)
    if len(of_step) == steps:
        raise KeyboardInterrupt


gpt.GPT.forward, optim.MuonAdamW.step = heard, stepped
named = ["depth", "aspect_ratio", "head_dim", "max_seq_len", "window_pattern", "embedding_lr", "unembedding_lr"]
named += ["matrix_lr", "scalar_lr", "weight_decay", "warmup_steps", "warmdown_ratio", "final_lr_frac", "model_tag"]
sys.argv = ["base_train", "--device-type", "cpu", "--num-iterations", str(meta["step"] + steps + 3)]
for name in named:
    sys.argv += [f"--{name.replace('_', '-')}", str(flags[name])]
sys.argv += ["--device-batch-size", str(rows), "--total-batch-size", str(meta["total_batch_size"])]
sys.argv += ["--resume-from-step", str(meta["step"]), "--eval-every", "-1", "--core-metric-every", "-1"]
sys.argv += ["--sample-every", "-1", "--save-every", "-1"]
stdout, sys.stdout = sys.stdout, sys.stderr
try:
    runpy.run_module("scripts.base_train", run_name="__main__")
except KeyboardInterrupt:
    pass
sys.stdout = stdout
print(json.dumps({"bpb": bpb, "texts": texts, "losses": of_step}))
