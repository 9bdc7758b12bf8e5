"""Writes an untrained model of upstream's as its training script would leave it, under upstream's own Python.

Arguments: depth, sequence length, head size. In NANOCHAT_BASE_DIR, beside the tokenizer there; the tag is d and the depth.
The projections that upstream starts at zero get noise: what is zero might be skipped, and a model that is blind to its
context says nothing of decoding.
"""

import dataclasses
import os
import sys


def main() -> None:
    sys.path[0] = os.getcwd()
    import torch
    from nanochat.checkpoint_manager import save_checkpoint
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.tokenizer import get_tokenizer

    depth, length, head_dim = (int(argument) for argument in sys.argv[1:4])
    width = depth * 64
    config = GPTConfig(
        sequence_len=length, vocab_size=get_tokenizer().get_vocab_size(), n_layer=depth, n_head=width // head_dim,
        n_kv_head=width // head_dim, n_embd=width, window_pattern="SSSL",
    )
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    torch.manual_seed(42)
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("c_proj.weight"):
                parameter.normal_(0.0, 0.3 * width**-0.5)
            elif name == "lm_head.weight":
                parameter.normal_(0.0, width**-0.5)
    flags = {
        "depth": depth, "aspect_ratio": 64, "head_dim": head_dim, "max_seq_len": length, "window_pattern": "SSSL",
        "device_batch_size": 1, "total_batch_size": length, "num_iterations": 1, "eval_tokens": length,
    }
    meta = {
        "step": 1, "val_bpb": None, "model_config": dataclasses.asdict(config), "user_config": flags,
        "device_batch_size": 1, "max_seq_len": length, "total_batch_size": length,
        "dataloader_state_dict": {"pq_idx": 0, "rg_idx": 0, "epoch": 1},
    }
    directory = os.path.join(os.environ["NANOCHAT_BASE_DIR"], "base_checkpoints", f"d{depth}")
    save_checkpoint(directory, 1, model.state_dict(), None, meta)


if __name__ == "__main__":
    main()
