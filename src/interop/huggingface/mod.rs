//! Models for Python programs: safetensors with `config.json` and `tokenizer.json`, and what transformers loads.

mod modeling;
mod tokenizer;

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::{Files, StagedDir};
use crate::interop::exported::{Exported, Tensor};
use crate::model::config::{GptConfig, ModelConfig};
use crate::precision::Precision;
use crate::tensors::{NamedTensor, write_safetensors};

/// Writes `model.safetensors` with the parameters by their own names, `config.json` and `tokenizer.json`.
///
/// # Errors
/// What the file system refuses.
pub fn safetensors(files: &Files, exported: &Exported<'_>, to: &Path) -> Result<Vec<String>> {
    let staged = files.deliver_dir(to)?;
    let config = match &exported.config.model {
        ModelConfig::Gpt(model) => modeling::config(exported, model, false),
        small => json!({ "model_type": "nanorun", "model": small, "bos_token_id": exported.tokenizer.bos() }),
    };
    weights(&staged, to, &exported.parameters)?;
    write_json(&staged, "config.json", &config)?;
    let notes = tokenizer(&staged, exported)?;
    staged.commit()?;
    Ok(notes)
}

/// Writes a model that transformers loads: its own NanoChat class where the model is one, else one with
/// `modeling_nanorun.py` beside it, which `trust_remote_code` takes.
///
/// # Errors
/// A model of another kind; class `Input`. What the file system refuses.
pub fn transformers(files: &Files, exported: &Exported<'_>, to: &Path) -> Result<Vec<String>> {
    let ModelConfig::Gpt(model) = &exported.config.model else {
        return Err(Error::input("transformers has no such model: model.kind")
            .key("model.kind")
            .expected("\"gpt\"")
            .help("export it with --to safetensors"));
    };
    let staged = files.deliver_dir(to)?;
    let native = is_native(exported, model);
    let (config, mut notes) = if native {
        let renamed = native_parameters(exported, model)?;
        weights(&staged, to, &renamed)?;
        (native_config(exported, model), vec!["as transformers' own NanoChatForCausalLM".to_owned()])
    } else {
        weights(&staged, to, &exported.parameters)?;
        staged.write("modeling_nanorun.py", modeling::SOURCE.as_bytes())?;
        let note = "with modeling_nanorun.py beside it: load it with trust_remote_code=True";
        (modeling::config(exported, model, true), vec![note.to_owned()])
    };
    write_json(&staged, "config.json", &config)?;
    let bos = exported.tokenizer.bos();
    let generation = json!({ "bos_token_id": bos, "eos_token_id": bos, "do_sample": false });
    write_json(&staged, "generation_config.json", &generation)?;
    notes.extend(tokenizer(&staged, exported)?);
    staged.commit()?;
    Ok(notes)
}

/// What stands beside a model in another form: its sizes in `config.json`, and its tokenizer. Returns what is to be told.
///
/// # Errors
/// What the file system refuses.
pub(super) fn beside(staged: &StagedDir, exported: &Exported<'_>, model: &GptConfig) -> Result<Vec<String>> {
    write_json(staged, "config.json", &modeling::config(exported, model, false))?;
    tokenizer(staged, exported)
}

fn weights(staged: &StagedDir, to: &Path, tensors: &[Tensor<'_>]) -> Result<()> {
    let tensors: Vec<NamedTensor<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| NamedTensor::f32(name.clone(), shape, Cow::Borrowed(&**values)))
        .collect();
    let mut file = staged.create("model.safetensors")?;
    write_safetensors(&mut file, &tensors).map_err(|error| {
        Error::run("cannot write a file").file(to.join("model.safetensors")).because(error)
    })?;
    Ok(file.finish()?)
}

fn write_json(staged: &StagedDir, name: &str, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::internal(format!("{name} cannot be written")).because(error))?;
    Ok(staged.write(name, format!("{text}\n").as_bytes())?)
}

/// `tokenizer.json` and what goes with it; a character tokenizer has no such form.
fn tokenizer(staged: &StagedDir, exported: &Exported<'_>) -> Result<Vec<String>> {
    let Some(found) = tokenizer::tokenizer(exported.tokenizer) else {
        return Ok(vec!["without tokenizer.json: a character tokenizer has no such form".to_owned()]);
    };
    write_json(staged, "tokenizer.json", &found)?;
    let bos =
        String::from_utf8_lossy(&exported.tokenizer.token(exported.tokenizer.bos()).unwrap_or_default())
            .into_owned();
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": bos,
        "model_max_length": exported.config.model.sequence_len(),
        "clean_up_tokenization_spaces": false,
    });
    write_json(staged, "tokenizer_config.json", &config)?;
    Ok(Vec::new())
}

/// The tokenizer of a file of Hugging Face's.
pub use tokenizer::{read as read_tokenizer, tokenizer as tokenizer_json};

/// Whether transformers' NanoChat computes this model: upstream's of before there were lambdas, windows and value
/// embeddings, or one whose switches and lambdas make it that.
fn is_native(exported: &Exported<'_>, model: &GptConfig) -> bool {
    let all = |name: &str, value: f32| {
        let found = Exported::find(&exported.parameters, name);
        found.is_some_and(|(_, _, values)| values.iter().all(|&lambda| lambda == value))
    };
    model.value_embeds.is_none()
        && model.smear_channels.is_none()
        && !model.backout
        && model.qk_scale == 1.0
        && model.rotary_precision == Precision::F32
        && model.windows.iter().all(|&window| window >= model.sequence_len)
        && all("resid_lambdas", 1.0)
        && all("x0_lambdas", 0.0)
}

/// Its parameters under transformers' names, without the rows that pad the vocabulary.
fn native_parameters<'a>(exported: &'a Exported<'_>, model: &GptConfig) -> Result<Vec<Tensor<'a>>> {
    let take = |from: String, to: String| {
        let (_, shape, values) = Exported::find(&exported.parameters, &from)
            .ok_or_else(|| Error::internal(format!("the run lacks `{from}`")))?;
        Ok::<Tensor<'_>, Error>((to, shape.clone(), Cow::Borrowed(&**values)))
    };
    let table = |from: &str, to: &str| {
        let (to, shape, values) = take(from.to_owned(), to.to_owned())?;
        let columns = shape.get(1).copied().unwrap_or(1);
        let kept = values.get(..model.vocab_size * columns).unwrap_or(&values).to_vec();
        Ok::<Tensor<'_>, Error>((to, vec![model.vocab_size, columns], kept.into()))
    };
    let mut tensors = vec![
        table("transformer.wte.weight", "model.embed_tokens.weight")?,
        table("lm_head.weight", "lm_head.weight")?,
    ];
    for layer in 0..model.n_layer {
        for (from, to) in [
            ("attn.c_q", "self_attn.q_proj"),
            ("attn.c_k", "self_attn.k_proj"),
            ("attn.c_v", "self_attn.v_proj"),
            ("attn.c_proj", "self_attn.o_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ] {
            let from = format!("transformer.h.{layer}.{from}.weight");
            tensors.push(take(from, format!("model.layers.{layer}.{to}.weight"))?);
        }
    }
    Ok(tensors)
}

fn native_config(exported: &Exported<'_>, model: &GptConfig) -> Value {
    let bos = exported.tokenizer.bos();
    json!({
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": model.vocab_size,
        "hidden_size": model.n_embd,
        "intermediate_size": 4 * model.n_embd,
        "num_hidden_layers": model.n_layer,
        "num_attention_heads": model.n_head,
        "num_key_value_heads": model.n_kv_head,
        "max_position_embeddings": model.sequence_len,
        "hidden_act": "relu2",
        "rms_norm_eps": f64::from(model.norm_eps),
        "rope_parameters": { "rope_type": "default", "rope_theta": model.rotary_base },
        "final_logit_softcapping": model.softcap.map(f64::from),
        "attention_bias": false,
        "bos_token_id": bos,
        "eos_token_id": bos,
        "pad_token_id": null,
        "tie_word_embeddings": false,
        "dtype": "float32",
    })
}
