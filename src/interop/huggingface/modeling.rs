//! The configuration that `modeling_nanorun.py` reads, and that file.

use serde_json::{Value, json};

use crate::interop::exported::Exported;
use crate::model::config::GptConfig;
use crate::precision::Precision;

/// A GPT in one file of Python, every feature a field of its configuration.
pub(super) const SOURCE: &str = include_str!("modeling_nanorun.py");

/// Its configuration; `loadable` by transformers, with the file beside it.
pub(super) fn config(exported: &Exported<'_>, model: &GptConfig, loadable: bool) -> Value {
    let bos = exported.tokenizer.bos();
    let value_layers: Vec<usize> = (0..model.n_layer).filter(|&layer| model.has_value_embed(layer)).collect();
    let ve = model.value_embeds.as_ref();
    let mut config = json!({
        "architectures": ["NanorunForCausalLM"],
        "model_type": "nanorun",
        "vocab_size": model.vocab_size,
        "padded_vocab_size": model.padded_vocab_size,
        "hidden_size": model.n_embd,
        "num_hidden_layers": model.n_layer,
        "num_attention_heads": model.n_head,
        "num_key_value_heads": model.n_kv_head,
        "head_dim": model.head_dim(),
        "max_position_embeddings": model.sequence_len,
        // Positions back that each layer sees.
        "windows": model.windows,
        "rope_theta": model.rotary_base,
        "rope_in_bfloat16": model.rotary_precision == Precision::Bf16,
        "qk_scale": f64::from(model.qk_scale),
        "final_logit_softcapping": model.softcap.map(f64::from),
        "value_embed_layers": value_layers,
        "value_gate_channels": ve.map(|ve| ve.gate_channels),
        "value_gate_scale": ve.map(|ve| f64::from(ve.gate_scale)),
        "smear_channels": model.smear_channels,
        "backout_layer": model.backout.then_some(model.n_layer / 2),
        "rms_norm_eps": f64::from(model.norm_eps),
        "bos_token_id": bos,
        "eos_token_id": bos,
        "tie_word_embeddings": false,
        "dtype": "float32",
        "nanorun": { "commit": exported.config.commit, "step": exported.step },
    });
    if loadable && let Value::Object(fields) = &mut config {
        let auto = json!({
            "AutoConfig": "modeling_nanorun.NanorunConfig",
            "AutoModelForCausalLM": "modeling_nanorun.NanorunForCausalLM",
        });
        fields.insert("auto_map".to_owned(), auto);
    }
    config
}
