"""A GPT in the style of karpathy/nanochat for Hugging Face transformers, as nanorun exports it.

Every feature is a field of the configuration: windows, value embeddings, smear, backout, query/key scale, softcap. Compute
in float32 or bfloat16: float16 overflows in the squared ReLU.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# The name of the cache in outputs and arguments differs between versions of transformers.
CACHE = "cache" if "cache" in {f.name for f in dataclasses.fields(CausalLMOutputWithPast)} else "past_key_values"


class NanorunConfig(PretrainedConfig):
    model_type = "nanorun"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size=32768,
        padded_vocab_size=None,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=None,
        head_dim=128,
        max_position_embeddings=2048,
        windows=None,
        rope_theta=100000.0,
        rope_in_bfloat16=False,
        qk_scale=1.0,
        final_logit_softcapping=15.0,
        value_embed_layers=(),
        value_gate_channels=None,
        value_gate_scale=None,
        smear_channels=None,
        backout_layer=None,
        rms_norm_eps=2.0**-23,
        use_cache=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.padded_vocab_size = padded_vocab_size or vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.windows = list(windows or [max_position_embeddings] * num_hidden_layers)
        self.rope_theta = rope_theta
        self.rope_in_bfloat16 = rope_in_bfloat16
        self.qk_scale = qk_scale
        self.final_logit_softcapping = final_logit_softcapping
        self.value_embed_layers = list(value_embed_layers)
        self.value_gate_channels = value_gate_channels
        self.value_gate_scale = value_gate_scale
        self.smear_channels = smear_channels
        self.backout_layer = backout_layer
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        super().__init__(**kwargs)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config, self.layer = config, layer
        width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
        shared = config.num_key_value_heads * config.head_dim
        self.c_q = nn.Linear(width, heads, bias=False)
        self.c_k = nn.Linear(width, shared, bias=False)
        self.c_v = nn.Linear(width, shared, bias=False)
        self.c_proj = nn.Linear(heads, width, bias=False)
        if layer in config.value_embed_layers:
            self.ve_gate = nn.Linear(config.value_gate_channels, config.num_key_value_heads, bias=False)

    def forward(self, x, value, rotary, mask, cache, norm):
        config = self.config
        batch, length, _ = x.shape

        def heads(y, count):
            return y.view(batch, length, count, config.head_dim)

        q = heads(self.c_q(x), config.num_attention_heads)
        k = heads(self.c_k(x), config.num_key_value_heads)
        v = heads(self.c_v(x), config.num_key_value_heads)
        if value is not None:
            gate = config.value_gate_scale * torch.sigmoid(self.ve_gate(x[..., : config.value_gate_channels]))
            v = v + gate.unsqueeze(-1) * heads(value, config.num_key_value_heads)
        cos, sin = rotary

        def turned(y):
            first, second = y.chunk(2, dim=-1)
            turned = torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)
            return (norm(turned.to(y.dtype)) * config.qk_scale).transpose(1, 2)

        q, k, v = turned(q), turned(k), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        groups = config.num_attention_heads // config.num_key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, 4 * config.hidden_size, bias=False)
        self.c_proj = nn.Linear(4 * config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)


class NanorunForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = NanorunConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_cache_class = True
    _no_split_modules = ["Block"]

    def __init__(self, config):
        super().__init__(config)
        rows, width = config.padded_vocab_size, config.hidden_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(rows, width),
                "h": nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers)),
            }
        )
        self.lm_head = nn.Linear(width, rows, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(config.num_hidden_layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(config.num_hidden_layers))
        if config.smear_channels:
            self.smear_gate = nn.Linear(config.smear_channels, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout_layer is not None:
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        shared = config.num_key_value_heads * config.head_dim
        if config.value_embed_layers:
            tables = {str(layer): nn.Embedding(rows, shared) for layer in config.value_embed_layers}
            self.value_embeds = nn.ModuleDict(tables)
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer.wte

    def set_input_embeddings(self, table):
        self.transformer.wte = table

    def get_output_embeddings(self):
        return self.lm_head

    def norm(self, x):
        return F.rms_norm(x, (x.size(-1),), eps=self.config.rms_norm_eps)

    def rotary(self, positions, dtype):
        """Tables are made when they are needed: buffers that are not saved would be zeroed by from_pretrained."""
        config = self.config
        channels = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device)
        frequencies = 1.0 / (config.rope_theta ** (channels / config.head_dim))
        angles = torch.outer(positions.float(), frequencies)
        cos, sin = angles.cos(), angles.sin()
        if config.rope_in_bfloat16:
            cos, sin = cos.bfloat16(), sin.bfloat16()
        return tuple(table.to(dtype)[None, :, None, :] for table in (cos, sin))

    def mask(self, window, start, length, kept, dtype, device):
        """Additive: keys up to `window` positions back, of those that are no padding."""
        ahead = torch.arange(start + length, device=device)[None, :]
        at = torch.arange(start, start + length, device=device)[:, None]
        seen = (ahead <= at) & (at - ahead <= window)
        seen = seen[None, None]
        if kept is not None:
            # A position always sees itself, so that one of padding gives numbers too.
            seen = (seen & kept[:, None, None, :].bool()) | (ahead == at)[None, None]
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)

    def smear(self, x, cache, kept):
        """Mixes a gated part of the previous token's embedding into each; the first of a text has none."""
        previous = getattr(cache, "previous_embedding", None)
        first = torch.zeros_like(x[:, :1]) if previous is None else previous.to(x.dtype)
        before = torch.cat([first, x[:, :-1]], dim=1)
        if kept is not None:
            # Padding is nobody's previous token.
            known = F.pad(kept, (1, 0))[:, -x.shape[1] - 1 : -1]
            before = before * known.unsqueeze(-1).to(x.dtype)
        if cache is not None:
            remember(cache, x[:, -1:])
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[..., : self.config.smear_channels]))
        return x + gate * before

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        config = self.config
        if input_ids is None:
            raise ValueError("this model looks tokens up in several tables: input_ids are required")
        cache = cache if cache is not None else past_key_values
        if cache is None and (config.use_cache if use_cache is None else use_cache) and not self.training:
            cache = DynamicCache()
        batch, length = input_ids.shape
        start = cache.get_seq_length() if cache is not None else 0
        kept = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
        if kept is not None and bool(kept.all()):
            kept = None
        device = input_ids.device

        x = self.norm(self.transformer.wte(input_ids))
        if config.smear_channels:
            x = self.smear(x, cache, kept)
        # What turns queries and keys is their distance alone, so padding on the left moves nothing.
        rotary = self.rotary(torch.arange(start, start + length, device=device), x.dtype)
        windows = {window: self.mask(window, start, length, kept, x.dtype, device) for window in set(config.windows)}
        x0, middle = x, None
        for layer, block in enumerate(self.transformer.h):
            x = self.resid_lambdas[layer].to(x.dtype) * x + self.x0_lambdas[layer].to(x.dtype) * x0
            value = self.value_embeds[str(layer)](input_ids) if layer in config.value_embed_layers else None
            mask = windows[config.windows[layer]]
            x = x + block.attn(self.norm(x), value, rotary, mask, cache, self.norm)
            x = x + block.mlp(self.norm(x))
            if layer == config.backout_layer:
                middle = x
        if middle is not None:
            x = x - self.backout_lambda.to(x.dtype) * middle
        x = self.norm(x)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, keep])[..., : config.vocab_size].float()
        if config.final_logit_softcapping:
            cap = config.final_logit_softcapping
            logits = cap * torch.tanh(logits / cap)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].reshape(-1)
            loss = F.cross_entropy(logits[:, :-1].reshape(-1, config.vocab_size), targets, ignore_index=-100)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})
        return output if return_dict is not False else output.to_tuple()


def remember(cache, embedding):
    """Keeps the last embedding with a cache; beams that are reordered take theirs along."""
    if not hasattr(cache, "previous_embedding"):
        reorder = cache.reorder_cache

        def reordered(beams):
            reorder(beams)
            cache.previous_embedding = cache.previous_embedding.index_select(0, beams.to(embedding.device))

        cache.reorder_cache = reordered
    cache.previous_embedding = embedding.detach()
