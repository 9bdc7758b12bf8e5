//! `nanorun new`: a commented manifest, from flags, from answers, or from a run of upstream's.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use toml::Value;

use crate::backend::torch::device::BF16_CAPABILITY;
use crate::backend::torch::facts::torch_facts;
use crate::error::{Class, Error, Result};
use crate::experiment::Experiment;
use crate::files::Files;
use crate::interop::upstream::{Flags, SEED};
use crate::manifest::{Draft, Manifest};
use crate::stop;
use crate::upstream;

use super::output::Output;
use super::{environment, plan_options, threads};

/// `nanorun new`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct NewArgs {
    /// The manifest to write, which must not be there yet; - prints it (default: its name and .toml)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name of the experiment and of its results directory
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The question it answers
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// What you expect, and why
    #[arg(long, value_name = "TEXT")]
    hypothesis: Option<String>,
    /// Sizes to begin with: quickstart (a minute on a CPU), small (half an hour on a CPU), or upstream's d12, d20, d26
    #[arg(long, value_name = "NAME", value_parser = ["quickstart", "small", "d12", "d20", "d26"], hide_possible_values = true)]
    preset: Option<String>,
    /// Layers, with upstream's sizes for them
    #[arg(long, value_name = "N", conflicts_with = "preset", value_parser = clap::value_parser!(u16).range(1..=1000))]
    depth: Option<u16>,
    /// What is compared: a field and its values, the control's first; may be given several times
    #[arg(long, value_name = "PATH=VALUE,VALUE")]
    axis: Vec<String>,
    /// How many seeds each arm has, or which ones: 3, or 1,2,5
    #[arg(long, value_name = "N|LIST")]
    seeds: Option<String>,
    /// Optimizer steps (default: the preset's, else upstream's horizon for the depth)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    steps: Option<u64>,
    /// What computes: cpu, tch or scalar (default: tch on a GPU that works here, else cpu)
    #[arg(long, value_name = "NAME", value_parser = ["cpu", "tch", "scalar"], hide_possible_values = true)]
    backend: Option<String>,
    /// Shards: files, a glob, a directory, or embedded (default: upstream's where they are here, else embedded)
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// A tokenizer's directory, or the size of one that is trained (default: upstream's where it is here, else 4096)
    #[arg(long, value_name = "PATH|N")]
    tokenizer: Option<String>,
    /// The commit whose recipe is pinned (default: the newest that is known; of a run of upstream's the one that fits it)
    #[arg(long, value_name = "HEX")]
    commit: Option<String>,
    /// Set any other field; may be given several times
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Of a run of upstream's: the flags of its base_train, or its whole command line
    #[arg(long, value_name = "FLAGS", conflicts_with_all = ["preset", "depth"], allow_hyphen_values = true)]
    from_flags: Option<String>,
    /// Of a run of upstream's: its meta_NNNNNN.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["preset", "depth", "from_flags"])]
    from_meta: Option<PathBuf>,
    /// Leave a flag of that run out, such as fp8, which has no counterpart
    #[arg(long, value_name = "FLAG")]
    without: Vec<String>,
    /// Ask nothing, also on a terminal
    #[arg(long, short)]
    yes: bool,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  nanorun new                                        asks, on a terminal
  nanorun new --name lr --preset quickstart --axis optimizer.matrix_lr=0.02,0.03 \\
      --question 'Does a higher matrix learning rate help?'
  nanorun new d12.toml --depth 12 --axis schedule.warmdown=linear,sqrt --seeds 5
  nanorun new --from-flags '--depth=12 --target-param-data-ratio=12'
  nanorun new --from-flags 'torchrun --nproc_per_node=8 -m scripts.base_train -- --depth=24 --run=d24'
  nanorun new --from-meta ~/.cache/nanochat/base_checkpoints/d12/meta_002000.json --commit 92d63d4

The manifest is checked as `nanorun plan` checks it before it is written, and never replaces a file.";

/// Writes a manifest.
pub(super) fn new(args: &NewArgs) -> Result<Option<Class>> {
    stop::watch()?;
    threads::start(None)?;
    let output = Output::new(false);
    let is_upstreams = args.from_flags.is_some() || args.from_meta.is_some();
    if !args.without.is_empty() && !is_upstreams {
        return Err(Error::input("--without is for a run of upstream's")
            .expected("--from-flags or --from-meta beside it"));
    }
    let asks =
        !args.yes && !is_upstreams && !args.json && io::stdin().is_terminal() && io::stderr().is_terminal();
    let args = if asks { &asked(args)? } else { args };
    if let Some(file) = args.file.as_deref().filter(|file| *file != Path::new("-")) {
        refuse_taken(file)?;
    }
    let mut draft = Draft::default();
    let mut notes = Vec::new();
    if is_upstreams {
        of_upstream(args, &mut draft, &mut notes)?;
    } else {
        of_flags(args, &mut draft)?;
    }
    for set in &args.sets {
        draft.set_text(set)?;
    }
    for axis in &args.axis {
        draft.axis_text(axis)?;
    }
    seeds(args, &mut draft, is_upstreams)?;
    if draft.compares() {
        draft.set(
            "scorecard.quality.margin",
            0.002,
            "how much worse than the control, in bits a byte, would still do",
        );
    }
    let name = draft.get("name").and_then(Value::as_str).unwrap_or("experiment").to_owned();
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let text = draft.text();
    let prints = file == Path::new("-");
    if !prints {
        refuse_taken(&file)?;
    }
    let (runs, warnings) = checked(&file, &text)?;
    notes.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
    if !prints {
        Files::from_env()?.deliver_new(&file, text.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(&file),
            _ => error.into(),
        })?;
    }
    for note in &notes {
        output.note(note);
    }
    if args.json {
        let path = (!prints).then_some(&file);
        output.result(
            &json!({ "manifest": path, "name": name, "runs": runs, "text": text, "notes": notes })
                .to_string(),
        );
    } else if prints {
        output.result(&text);
    } else {
        output.result(&file.display().to_string());
        let s = if runs == 1 { "" } else { "s" };
        output.note(&format!(
            "{runs} run{s}: nanorun plan {0} shows what they take, nanorun {0} trains them",
            file.display()
        ));
    }
    Ok(None)
}

fn refuse_taken(file: &Path) -> Result<()> {
    if file.symlink_metadata().is_ok() { Err(taken(file)) } else { Ok(()) }
}

fn taken(file: &Path) -> Error {
    Error::input("a file is there already, and it is never replaced")
        .file(file)
        .expected("a name that is free")
        .help("name another file, another --name, or - to print the manifest")
}

/// Plans the text as `nanorun plan` does. -> how many runs it has, and what the plan warns of
fn checked(file: &Path, text: &str) -> Result<(usize, Vec<String>)> {
    let file = if file == Path::new("-") { Path::new("new.toml") } else { file };
    let manifest = Manifest::parse(file, text, &plan_options(environment()))?;
    let experiment = Experiment::of(manifest, Path::new("results"))?;
    Ok((experiment.plan.runs.len(), experiment.plan.warnings.clone()))
}

/// Without a run of upstream's to go by.
fn of_flags(args: &NewArgs, draft: &mut Draft) -> Result<()> {
    let preset = match (args.preset.as_deref(), args.depth) {
        (Some(preset), _) => preset.to_owned(),
        (None, Some(depth)) => format!("d{depth}"),
        (None, None) => "quickstart".to_owned(),
    };
    let name = args.name.clone().unwrap_or_else(|| "experiment".to_owned());
    draft.head.push(
        "Written by `nanorun new`. What is left out is upstream's own at the pinned commit; `nanorun fields`"
            .to_owned(),
    );
    draft.head.push("lists every field.".to_owned());
    draft.set("name", name, "-");
    head(args, draft);
    let recipe = match &args.commit {
        Some(commit) => upstream::find(commit)
            .map_err(|unknown| Error::input(format!("--commit {commit}: {unknown}")).expected(pinned()))?,
        None => upstream::newest(),
    };
    draft.set("upstream.commit", recipe.short(), "pins the recipe: architecture, optimizer, schedules, laws");
    draft.set("run.seed", 1, "draws the initial weights");
    backend(args.backend.as_deref(), draft);
    draft.set("schedule.warmdown", "linear", "upstream's; sqrt, cosine or constant instead");
    match preset.as_str() {
        "quickstart" => {
            draft.set("budget.steps", 140, "-");
            draft.set("schedule.warmup_steps", 10, "-");
            draft.set("model.depth", 3, "layers");
            draft.set("model.head_dim", 64, "192 channels in all");
            draft.set("model.sequence_len", 256, "tokens of a row");
            draft.set("train.device_batch_size", 8, "rows of a micro-batch");
            draft.set("train.total_batch_size", 2048, "tokens of a step");
            draft.set("eval.every", 70, "steps between validations");
            draft.set("eval.tokens", 32768, "tokens of a validation");
            data(args, draft, true);
        }
        "small" => {
            draft.set("budget.steps", 600, "-");
            draft.set("schedule.warmup_steps", 20, "-");
            draft.set("model.depth", 4, "layers");
            draft.set("model.head_dim", 64, "256 channels in all");
            draft.set("model.sequence_len", 512, "tokens of a row");
            draft.set("train.device_batch_size", 8, "rows of a micro-batch");
            draft.set("train.total_batch_size", 8192, "tokens of a step");
            draft.set("eval.every", 150, "steps between validations");
            draft.set("eval.tokens", 131_072, "tokens of a validation");
            data(args, draft, true);
        }
        deep => {
            let depth: i64 = deep.trim_start_matches('d').parse().unwrap_or(12);
            draft.set("model.depth", depth, "layers; every other size follows from it");
            draft.set(
                "budget.param_data_ratio",
                recipe.schedule.param_data_ratio,
                "tokens a scaling parameter: upstream's horizon",
            );
            data(args, draft, false);
        }
    }
    if let Some(steps) = args.steps {
        draft.set("budget.steps", i64::try_from(steps).unwrap_or(i64::MAX), "-");
    }
    Ok(())
}

/// The commits there are.
fn pinned() -> String {
    let lines = upstream::RECIPES.iter().map(|recipe| format!("{}  {}", recipe.short(), recipe.note));
    format!("the first 7 or more digits of one of\n    {}", lines.collect::<Vec<_>>().join("\n    "))
}

/// Of a run that somebody made with upstream's scripts.
fn of_upstream(args: &NewArgs, draft: &mut Draft, notes: &mut Vec<String>) -> Result<()> {
    let (mut flags, source) = match (&args.from_flags, &args.from_meta) {
        (Some(text), _) => (
            Flags::parse(text)?,
            format!("the flags {}", text.split_whitespace().collect::<Vec<_>>().join(" ")),
        ),
        (None, Some(path)) => (Flags::of_meta(path)?, path.display().to_string()),
        (None, None) => return Err(Error::internal("there is no run of upstream's")),
    };
    for flag in &args.without {
        flags.without(flag)?;
    }
    let found = flags.understood(args.commit.as_deref())?;
    draft.head.push("Written by `nanorun new` from".to_owned());
    draft.head.push(format!("  {source}"));
    draft.head.push(
        "Every flag is a field below; what is left out is upstream's own at the pinned commit.".to_owned(),
    );
    let name = args.name.clone().or(found.name).unwrap_or_else(|| "upstream".to_owned());
    draft.set("name", as_name(&name), "-");
    head(args, draft);
    draft.set(
        "upstream.commit",
        found.recipe.short(),
        "pins the recipe: architecture, optimizer, schedules, laws",
    );
    draft.set("run.seed", SEED, "upstream's own");
    let wished = match (args.backend.as_deref(), found.device) {
        (Some(backend), _) => Some(backend),
        (None, Some("cpu")) => Some("cpu"),
        (None, Some(_)) => Some("tch"),
        (None, None) => None,
    };
    backend(wished, draft);
    draft.set("schedule.warmdown", "linear", "upstream's");
    // Where it was said is told by name.
    for (path, value, flag) in found.fields {
        draft.set(path, value, &flag);
    }
    if let Some(steps) = args.steps {
        draft.set("budget.steps", i64::try_from(steps).unwrap_or(i64::MAX), "-");
    }
    data(args, draft, false);
    notes.extend(found.notes);
    notes.push(format!("the recipe is that of {}, {}", found.recipe.short(), found.recipe.note));
    Ok(())
}

fn head(args: &NewArgs, draft: &mut Draft) {
    let question = args.question.clone().or_else(|| {
        let (path, values) = args.axis.first()?.split_once('=')?;
        Some(format!(
            "Which is better for {}: {}?",
            path.trim(),
            values.split(',').map(str::trim).collect::<Vec<_>>().join(" or ")
        ))
    });
    if let Some(question) = question {
        draft.set("question", question, "-");
    }
    if let Some(hypothesis) = &args.hypothesis {
        draft.set("hypothesis", hypothesis.as_str(), "-");
    }
}

/// What computes: as asked for, else what works here.
fn backend(wished: Option<&str>, draft: &mut Draft) {
    let gpu = || {
        let facts = torch_facts().ok()?;
        let devices = facts.cuda.ok()?.devices;
        devices.first().map(|gpu| gpu.capability >= BF16_CAPABILITY)
    };
    let found = if matches!(wished, None | Some("tch")) { gpu() } else { None };
    match (wished, found) {
        (None | Some("tch"), Some(bf16)) => {
            draft.set("run.backend", "tch", "libtorch; `nanorun doctor` says what works here");
            draft.set("run.device", "cuda:0", "-");
            draft.set("run.precision", if bf16 { "bf16" } else { "f32" }, "as upstream trains on such a GPU");
        }
        // Asked for, wherever it is going to run.
        (Some("tch"), None) => {
            draft.set("run.backend", "tch", "libtorch; none works here: `nanorun doctor` says why");
            draft.set("run.device", "cuda:0", "or cpu");
            draft.set("run.precision", "bf16", "as upstream trains on a GPU");
        }
        (Some(backend), _) => {
            draft.set("run.backend", backend, "what computes: cpu, tch or scalar");
        }
        (None, None) => {
            draft.set("run.backend", "cpu", "tch computes on a GPU; `nanorun doctor` says what works here");
        }
    }
}

/// Where the text and its tokenizer are.
fn data(args: &NewArgs, draft: &mut Draft, embedded: bool) {
    let base = std::env::var("NANOCHAT_BASE_DIR").ok().filter(|base| !base.is_empty());
    let base = base.unwrap_or_else(|| "~/.cache/nanochat".to_owned());
    let home = std::env::var("HOME").unwrap_or_default();
    let here = |path: &str| Path::new(&path.replacen('~', &home, 1)).is_dir();
    let own = ["base_data_climbmix", "base_data"].map(|name| format!("{base}/{name}"));
    let shards = match args.data.as_deref() {
        Some(data) => data.to_owned(),
        None if embedded => "embedded".to_owned(),
        None => {
            let there = own.iter().find(|path| here(path)).unwrap_or(&own[0]);
            format!("{there}/*.parquet")
        }
    };
    let is_embedded = shards == "embedded";
    draft.set(
        "data.shards",
        shards,
        if is_embedded {
            "the Shakespeare that comes with nanorun"
        } else {
            "`nanorun data get climbmix` brings them"
        },
    );
    if is_embedded && !embedded {
        draft.set("eval.tokens", 131_072, "about as much as that text has; upstream evaluates far more");
    }
    let tokenizer = args
        .tokenizer
        .clone()
        .unwrap_or_else(|| if is_embedded { "4096".to_owned() } else { format!("{base}/tokenizer") });
    if let Ok(size) = tokenizer.parse::<i64>() {
        draft.set("data.tokenizer.vocab_size", size, "a tokenizer of so many tokens, trained on the text");
    } else {
        let declared = draft.get("data.vocab_size").cloned().unwrap_or(Value::Integer(32768));
        draft.set(
            "data.tokenizer.path",
            tokenizer.as_str(),
            "upstream's: tok_train makes it, or `nanorun tokenizer train`",
        );
        if !here(&tokenizer) {
            draft.set(
                "data.vocab_size",
                declared,
                "its tokens, so that a plan can be made before it is here",
            );
        }
    }
}

/// `--seeds`: how many, or which.
fn seeds(args: &NewArgs, draft: &mut Draft, is_upstreams: bool) -> Result<()> {
    let bad = |text: &str| {
        Error::input(format!("--seeds {text}")).expected("how many, such as 3, or which ones, such as 1,2,5")
    };
    let text = match &args.seeds {
        Some(text) => text.as_str(),
        // A run of upstream's is one run, unless something is compared.
        None if is_upstreams && !draft.compares() => return Ok(()),
        None => "3",
    };
    let seeds: Vec<Value> = if text.contains(',') {
        let parsed = text.split(',').map(|seed| seed.trim().parse::<i64>().ok().filter(|seed| *seed >= 0));
        parsed.map(|seed| seed.map(Value::Integer)).collect::<Option<_>>().ok_or_else(|| bad(text))?
    } else {
        let count = text.trim().parse::<i64>().ok().filter(|count| (1..=1000).contains(count));
        let first = draft.get("run.seed").and_then(Value::as_integer).unwrap_or(1);
        (0..count.ok_or_else(|| bad(text))?).map(|seed| Value::Integer(first + seed)).collect()
    };
    if let [one] = seeds.as_slice() {
        draft.set("run.seed", one.clone(), "draws the initial weights");
    } else {
        draft.axis("run.seed", seeds);
    }
    Ok(())
}

/// A name that a directory can have.
fn as_name(text: &str) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "_-.".contains(letter) { letter } else { '_' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_start_matches(['.', '-', '_']);
    if name.is_empty() { "upstream".to_owned() } else { name.to_owned() }
}

/// The arguments, with what is missing asked for on the terminal.
fn asked(args: &NewArgs) -> Result<NewArgs> {
    let mut args = args.clone();
    let ask = |what: &str, default: &str| -> Result<String> {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let _ = write!(io::stderr(), "{what}{shown}: ").and_then(|()| io::stderr().flush());
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer).map_err(|error| {
            Error::input("the answer cannot be read").because(error).help("give flags and --yes instead")
        })?;
        stop::check()?;
        if read == 0 {
            return Err(Error::input("there are no more answers")
                .expected("an answer, or an empty line for what stands in brackets"));
        }
        let answer = answer.trim();
        Ok(if answer.is_empty() { default.to_owned() } else { answer.to_owned() })
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    if args.name.is_none() {
        let name = loop {
            let name = ask("Name of the experiment", "experiment")?;
            if as_name(&name) == name {
                break name;
            }
            let _ = writeln!(io::stderr(), "  letters, digits, _, - and . alone, such as {}", as_name(&name));
        };
        args.name = Some(name);
    }
    if args.question.is_none() {
        args.question = given(ask("What does it ask?", "")?);
    }
    if args.hypothesis.is_none() {
        args.hypothesis = given(ask("What do you expect, and why?", "")?);
    }
    if args.preset.is_none() && args.depth.is_none() {
        loop {
            let size = ask(
                "How large? quickstart (a minute on a CPU), small, or upstream's d12, d20, d26 or another depth",
                "quickstart",
            )?;
            let depth =
                size.trim_start_matches('d').parse::<u16>().ok().filter(|depth| (1..=1000).contains(depth));
            if size == "quickstart" || size == "small" {
                args.preset = Some(size);
                break;
            } else if depth.is_some() {
                args.depth = depth;
                break;
            }
            let _ = writeln!(io::stderr(), "  quickstart, small, or a depth such as d12");
        }
    }
    if args.axis.is_empty() {
        loop {
            let axis =
                ask("What is compared? PATH=CONTROL,VALUE,..., or nothing", "schedule.warmdown=linear,sqrt")?;
            if matches!(axis.as_str(), "nothing" | "none" | "no" | "-") {
                break;
            }
            match Draft::default().axis_text(&axis) {
                Ok(()) => {
                    args.axis.push(axis);
                    break;
                }
                Err(error) => {
                    let _ = writeln!(io::stderr(), "  {}", crate::text::printable(&error.to_string()));
                }
            }
        }
    }
    if args.seeds.is_none() {
        args.seeds = Some(ask("How many seeds?", "3")?);
    }
    if args.data.is_none() {
        let default = if args.depth.is_some() { "" } else { "embedded" };
        args.data = given(ask("Which text? A directory or glob of shards, or embedded", default)?);
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::as_name;

    #[test]
    fn names_are_those_of_directories() {
        assert_eq!(as_name("d24 run/α"), "d24_run__");
        assert_eq!(as_name("../x"), "x");
        assert_eq!(as_name("--"), "upstream");
    }
}
