//! Models for ONNX runtimes: a graph that decodes with its keys and values as states, and the weights beside it.

mod graph;
mod network;
mod proto;
mod weights;

use std::path::Path;

use prost::Message as _;

use crate::error::{Error, Result};
use crate::files::Files;
use crate::interop::exported::Exported;
use crate::interop::huggingface;
use crate::model::config::ModelConfig;

use graph::WEIGHTS;
use network::Network;
use proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// The file of the graph.
const MODEL: &str = "model.onnx";

/// Writes `model.onnx` with `model.onnx.data` beside it, `config.json` and `tokenizer.json`.
///
/// Inputs are `input_ids` (batch, sequence) and `past_length` (1), both int64, and the states that the last call
/// returned: `past_key_values.L.key` and `.value` (batch, K, past, D) for each layer, and where the model smears
/// `past_embedding` (batch, 1, C). A text begins with 0, states of no positions, and an embedding of zeros. Outputs are
/// `logits` (batch, sequence, V), `present_length`, `present.L.key` and `.value`, `present_embedding`.
///
/// # Errors
/// A model of another kind; class `Input`. What the file system refuses.
pub fn export(files: &Files, exported: &Exported<'_>, to: &Path) -> Result<Vec<String>> {
    let ModelConfig::Gpt(model) = &exported.config.model else {
        return Err(Error::input("the form for ONNX has no such model: model.kind")
            .key("model.kind")
            .expected("\"gpt\"")
            .help("export it with --to safetensors"));
    };
    let mut network = Network::new(exported, model);
    network.build()?;
    let (graph, weights) = network.graph.finish("nanochat");
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    let proto = ModelProto {
        ir_version: Some(5),
        producer_name: Some("nanorun".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(10) }],
        metadata_props: vec![
            entry("commit", exported.config.commit.clone()),
            entry("step", exported.step.to_string()),
            entry("max_positions", model.sequence_len.to_string()),
            entry("bos_token_id", exported.tokenizer.bos().to_string()),
        ],
    };
    let staged = files.deliver_dir(to)?;
    let mut file = staged.create(WEIGHTS)?;
    weights
        .write(&mut file)
        .map_err(|error| Error::run("cannot write a file").file(to.join(WEIGHTS)).because(error))?;
    file.finish()?;
    staged.write(MODEL, &proto.encode_to_vec())?;
    let notes = huggingface::beside(&staged, exported, model)?;
    staged.commit()?;
    Ok(notes)
}
