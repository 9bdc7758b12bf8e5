"""Loads what `nanorun export` writes with torch, tokenizers, transformers, onnxruntime and tensorboard, and compares it with
upstream's own numbers.

    python exports.py NANORUN REPOSITORY PLACE
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

nanorun, root, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
base = root / "tests/fixtures/nanochat_base"
expected = json.loads((base / "tiny_expected.json").read_text())
torch.set_num_threads(1)


def run(*arguments):
    done = subprocess.run([nanorun, *map(str, arguments)], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def greedy(name, prompt, count):
    found = run("sample", name, "--prompt", prompt, "--temperature", 0, "--max-tokens", count, "--json", "-q")
    return json.loads(found)["continuations"][0]


def check_torch():
    """The files are those of torch: the same tensors as in upstream's own, bit for bit."""
    run("export", base, "--to", "upstream", "upstream", "--commit", "92d63d4", "-q")
    files = ["base_checkpoints/{}/model_000500.pt", "base_checkpoints/{}/optim_000500_rank0.pt"]
    for name in files:
        theirs = torch.load(base / name.format("tiny"), weights_only=True)
        ours = torch.load(place / "upstream" / name.format("d4"), weights_only=True)
        assert flat(ours) == flat(theirs), name
    name = "tokenizer/token_bytes.pt"
    assert torch.equal(torch.load(base / name), torch.load(place / "upstream" / name))
    groups = [torch.load(path, weights_only=True)["param_groups"] for path in (
        base / files[1].format("tiny"), place / "upstream" / files[1].format("d4"))]
    for theirs, ours in zip(*groups, strict=True):
        assert theirs.keys() == ours.keys() and theirs["params"] == ours["params"]
        for key, value in theirs.items():
            if isinstance(value, float):
                assert abs(value - ours[key]) <= 1e-12 + 1e-9 * abs(value), (key, value, ours[key])
            else:
                assert value == ours[key], (key, value, ours[key])


def flat(value, name=""):
    """Every tensor by its path, as bytes."""
    if isinstance(value, torch.Tensor):
        return {name: (tuple(value.shape), value.contiguous().view(torch.uint8).flatten().tolist())}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {key: found for at, item in items for key, found in flat(item, f"{name}.{at}").items()}


def check_tokenizers():
    """Hugging Face's tokenizers give the ids that tiktoken gave upstream."""
    for name in ["tokenizer_4096", "tokenizer_multilingual_1024"]:
        run("tokenizer", "export", root / "tests/fixtures/data" / name, "--to", f"{name}.json")
        tokenizer = Tokenizer.from_file(str(place / f"{name}.json"))
        cases = json.loads((root / "tests/fixtures/data" / name / "encodings.json").read_text())
        cases = cases["cases"] if isinstance(cases, dict) and "cases" in cases else cases
        count = 0
        for case in cases:
            text, ids = case["text"], case["ids"]
            if "<|" in text:
                continue  # Names of special tokens are ordinary text to upstream.
            assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
            assert tokenizer.decode(ids) == text or "\ufffd" in tokenizer.decode(ids), text
            count += 1
        assert count > 10, count


def check_transformers():
    """Logits, and generation with and without a cache, in a batch with padding and with beams."""
    run("export", base, "--to", "hf", "hf", "-q")
    model = AutoModelForCausalLM.from_pretrained(place / "hf", trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "hf", trust_remote_code=True)
    last = expected["last_logits"]
    assert tokenizer(last["text"])["input_ids"] == last["ids"]
    with torch.no_grad():
        found = model(torch.tensor([last["ids"]])).logits[0, -1]
    wanted = torch.tensor(last["values"])
    worst = ((found - wanted).abs().max() / wanted.abs().max()).item()
    assert worst <= 1e-5, worst
    print(f"logits: {worst:.1e} of the largest")
    prompts = [case["prompt_ids"] for case in expected["greedy"]]
    alone = []
    for case, ids in zip(expected["greedy"], prompts):
        count = len(case["output_ids"]) - len(ids)
        for cached in (True, False):
            out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, use_cache=cached)
            assert out[0].tolist() == case["output_ids"], (case["prompt"], cached)
        alone.append(model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist())
    longest = max(map(len, prompts))
    pad = model.config.bos_token_id
    batch = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    out = model.generate(batch, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=pad)
    assert out[:, longest:].tolist() == alone
    beams = [
        model.generate(torch.tensor([prompts[0]]), max_new_tokens=12, num_beams=3, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert beams[0].tolist() == beams[1].tolist()
    # Beyond the short windows, against nanorun itself.
    text = "To be, or not to be: that is the question. " * 5
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert 140 < ids.shape[1] < 240, ids.shape
    for cached in (True, False):
        out = model.generate(ids, max_new_tokens=12, do_sample=False, use_cache=cached)
        assert tokenizer.decode(out[0, ids.shape[1] :]) == greedy(base, text, 12), cached


NATIVE = """
name = "native"
upstream.commit = "92d63d4"
run = { seed = 1, backend = "cpu" }
budget.steps = 12
schedule = { warmdown = "linear", warmup_steps = 2 }
train = { device_batch_size = 2, total_batch_size = 512 }
eval.tokens = 512
data.tokenizer.vocab_size = 300
[model]
depth = 2
aspect_ratio = 32
head_dim = 32
sequence_len = 64
window_pattern = "L"
value_embeds = false
smear = false
backout = false
qk_scale = false
init_resid_lambda = 1.0
init_resid_lambda_fall = 0.0
init_x0_lambda = 0.0
init_x0_lambda_fall = 0.0
[optimizer]
scalar_lr = 0.0
"""


def check_native():
    """A model that transformers' own class computes is written as one."""
    (place / "native.toml").write_text(NATIVE)
    run("run", "native.toml", "-q")
    run("export", "native.toml", "--to", "hf", "native", "-q")
    config = json.loads((place / "native/config.json").read_text())
    assert config["model_type"] == "nanochat", config
    model = AutoModelForCausalLM.from_pretrained(place / "native", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "native")
    for prompt in ["The", "My lord, I"]:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=16, do_sample=False)
        assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == greedy("native.toml", prompt, 16)


# Every feature otherwise than in the fixture: shared keys, short windows everywhere but at the end, no smear, other scales.
SHARED = NATIVE.replace('"native"', '"shared"').replace("[optimizer]\nscalar_lr = 0.0\n", "").split("[model]")[0] + """
[model]
depth = 3
aspect_ratio = 32
head_dim = 16
n_kv_head = 2
sequence_len = 256
window_pattern = "SSL"
smear = false
qk_scale = 1.3
softcap = false
"""


class Onnx:
    """A model with its states, called as docs/onnx.md says."""

    def __init__(self, directory, batch=1):
        self.session = onnxruntime.InferenceSession(place / directory / "model.onnx")
        self.names = [output.name for output in self.session.get_outputs()]
        self.states = {"past_length": np.zeros(1, np.int64)}
        for value in self.session.get_inputs():
            if value.name.startswith("past_key_values"):
                shape = (batch, value.shape[1], 0, value.shape[3])
            elif value.name == "past_embedding":
                shape = (batch, 1, value.shape[2])
            else:
                continue
            self.states[value.name] = np.zeros(shape, np.float32)

    def __call__(self, ids):
        feeds = {"input_ids": np.array(ids, np.int64), **self.states}
        outputs = dict(zip(self.names, self.session.run(self.names, feeds)))
        logits = outputs.pop("logits")
        for name, value in outputs.items():
            self.states[name.replace("present.", "past_key_values.").replace("present_", "past_")] = value
        return logits


def worst(found, wanted):
    """The largest difference, of the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def check_onnx():
    """Logits, whole and in parts with the states in between, a batch, and the loop of the documentation."""
    code = re.search(r"```python\n(.*?)```", (root / "docs/onnx.md").read_text(), re.S).group(1)
    documented = {}
    exec(code, documented)
    generate = documented["generate"]
    run("export", base, "--to", "onnx", "onnx", "-q")
    last = expected["last_logits"]
    found = worst(Onnx("onnx")([last["ids"]])[0, -1], np.array(last["values"]))
    assert found <= 1e-5, found
    print(f"logits in ONNX: {found:.1e} of the largest")
    for case in expected["greedy"]:
        wanted = case["output_ids"][len(case["prompt_ids"]) :]
        assert list(generate(place / "onnx", case["prompt"], len(wanted), temperature=0)) == wanted, case["prompt"]
    drawn = [list(generate(place / "onnx", "The", 20, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    (place / "shared.toml").write_text(SHARED)
    run("run", "shared.toml", "-q")
    run("export", "shared.toml", "--to", "onnx", "shared", "-q")
    run("export", "shared.toml", "--to", "hf", "shared_hf", "-q")
    theirs = AutoModelForCausalLM.from_pretrained(place / "shared_hf", trust_remote_code=True, dtype=torch.float32).eval()
    draw = np.random.default_rng(1)
    for name, length in [("onnx", 250), ("shared", 250)]:
        ids = draw.integers(0, 256, (2, length))
        whole = Onnx(name, batch=2)(ids)
        model, parts, at = Onnx(name, batch=2), [], 0
        for count in [5, 1, 1, 60, 1, 100, 82]:
            parts.append(model(ids[:, at : at + count]))
            at += count
        found = worst(np.concatenate(parts, axis=1), whole)
        assert at == length and found <= 1e-5, (name, found)
        windows = json.loads((place / name / "config.json").read_text())["windows"]
        kept = [model.states[f"past_key_values.{layer}.key"].shape[2] for layer in range(len(windows))]
        assert kept == [min(window, length) for window in windows], (kept, windows)
        if name == "shared":
            with torch.no_grad():
                found = worst(whole, theirs(torch.tensor(ids)).logits.numpy())
            assert found <= 1e-5, found
            assert min(windows) < length < max(windows) + 1 and "past_embedding" not in model.states


def check_tensorboard():
    """TensorBoard's own reader finds the curves that `nanorun show` tells."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("run", root / "tests/fixtures/manifests/tiny.toml", "-q")
    report = json.loads(run("export", "tiny", "--to", "tensorboard", "logs", "--json"))
    assert len(report["runs"]) == 4
    for exported in report["runs"]:
        told = json.loads(run("show", exported["run"], "--json"))
        reader = EventAccumulator(str(Path(exported["file"]).parent))
        reader.Reload()
        scalars = {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        assert scalars["train/loss"] == [(step, np.float32(loss)) for step, loss in enumerate(told["losses"])]
        for metric in ["val_bpb", "val_loss"]:
            values = [(at["step"], np.float32(at["values"][metric])) for at in told["evaluations"]]
            assert scalars[f"eval/{metric}"] == values, metric
        assert len(scalars["schedule/lr_multiplier"]) == len(told["losses"])


for check in [check_torch, check_tokenizers, check_transformers, check_native, check_onnx, check_tensorboard]:
    check()
    print(f"{check.__name__}: right", flush=True)
