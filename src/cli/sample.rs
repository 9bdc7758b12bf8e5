//! `nanorun sample`: text from a trained run.

use serde_json::{Value, json};

use crate::error::{Class, Result};
use crate::experiment::Trained;
use crate::generate::{Sampling, SplitMix64};
use crate::run::sample::continuation;

use super::args::SampleArgs;
use super::naming::{For, Found, find};
use super::output::Output;
use super::threads;

/// Prints the prompt and its continuation, `--number` times.
pub(super) fn sample(args: &SampleArgs) -> Result<Option<Class>> {
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k };
    sampling.validate()?;
    let Found { experiment, key, checkpoint } = find(&args.manifest, &args.common, For::Reading)?;
    let key = args.run.as_deref().or(key.as_deref());
    let trained = experiment.trained(key, checkpoint.as_deref(), threads(&args.common, &experiment))?;
    let Trained { label, step, steps, sequence_len, mut engine, tokenizer } = trained;
    let output = Output::new(args.common.quiet);
    output.note(&format!("{label}: weights after step {step} of {steps}"));
    let mut rng = SplitMix64::new(args.seed);
    let mut texts = Vec::new();
    for _ in 0..args.number {
        let (engine, tokenizer) = (engine.as_mut(), tokenizer.as_ref());
        let (prompt, tokens) = (args.prompt.as_str(), args.tokens);
        let text = continuation(engine, tokenizer, sequence_len, prompt, tokens, &sampling, &mut rng)?;
        if args.common.json {
            texts.push(Value::String(text));
        } else {
            output.result(&format!("{prompt}{text}"));
        }
    }
    if args.common.json {
        let json = json!({ "run": label, "step": step, "prompt": args.prompt, "continuations": texts });
        output.result(&json.to_string());
    }
    Ok(None)
}
