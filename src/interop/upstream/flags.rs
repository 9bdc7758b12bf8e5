//! The flags of upstream's training script (`scripts/base_train.py`) in nanorun's own terms.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use toml::Value;

use super::meta::Meta;
use super::recipe::writes_such_metadata;
use crate::error::{Error, Result};
use crate::manifest::nearest;
use crate::upstream::{self, BatchRule, RECIPES, Recipe, WarmupRule, WeightDecayLaw};

/// Upstream's fixed seed.
pub const SEED: i64 = 42;

/// Tokens of the tokenizer that upstream's scripts train unless told.
const VOCAB_SIZE: i64 = 32768;

/// What a flag is here.
#[derive(Clone, Copy)]
enum Kind {
    /// This field, a whole number.
    Count(&'static str),
    /// This field, a number.
    Number(&'static str),
    /// This field, text.
    Text(&'static str),
    /// One of several fields that exclude each other; or something that is looked at apart.
    Apart,
    /// It decides no number, so the manifest has nothing of it.
    Nothing(&'static str),
}

/// The flags of all pinned commits.
const FLAGS: &[(&str, Kind)] = &[
    ("run", Kind::Apart),
    ("model_tag", Kind::Apart),
    ("device_type", Kind::Apart),
    ("fp8", Kind::Apart),
    ("fp8_recipe", Kind::Nothing("it goes with --fp8")),
    ("depth", Kind::Count("model.depth")),
    ("aspect_ratio", Kind::Count("model.aspect_ratio")),
    ("head_dim", Kind::Count("model.head_dim")),
    ("max_seq_len", Kind::Count("model.sequence_len")),
    ("window_pattern", Kind::Text("model.window_pattern")),
    ("num_iterations", Kind::Apart),
    ("target_flops", Kind::Apart),
    ("target_param_data_ratio", Kind::Apart),
    ("device_batch_size", Kind::Count("train.device_batch_size")),
    ("total_batch_size", Kind::Count("train.total_batch_size")),
    ("embedding_lr", Kind::Number("optimizer.embedding_lr")),
    ("unembedding_lr", Kind::Number("optimizer.unembedding_lr")),
    ("matrix_lr", Kind::Number("optimizer.matrix_lr")),
    ("scalar_lr", Kind::Number("optimizer.scalar_lr")),
    ("weight_decay", Kind::Number("optimizer.weight_decay")),
    ("adam_beta1", Kind::Apart),
    ("adam_beta2", Kind::Apart),
    ("warmup_ratio", Kind::Number("schedule.warmup_ratio")),
    ("warmup_steps", Kind::Count("schedule.warmup_steps")),
    ("warmdown_ratio", Kind::Number("schedule.warmdown_ratio")),
    ("final_lr_frac", Kind::Number("schedule.final_lr_frac")),
    ("resume_from_step", Kind::Apart),
    ("eval_every", Kind::Apart),
    ("eval_tokens", Kind::Count("eval.tokens")),
    ("core_metric_every", Kind::Apart),
    ("core_metric_max_per_task", Kind::Nothing("it goes with --core-metric-every")),
    ("sample_every", Kind::Nothing("samples are taken at a run's end")),
    ("save_every", Kind::Apart),
];

/// A run of upstream's, by its flags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flags {
    /// By name, with underscores.
    given: BTreeMap<String, String>,
    /// Processes that torchrun starts.
    pub ranks: Option<u64>,
    /// Tokens of the tokenizer, where that is known.
    pub vocab_size: Option<u64>,
    /// What its metadata say of a commit.
    meta: Option<Box<Meta>>,
}

/// What they come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Understood {
    /// The recipe.
    pub recipe: &'static Recipe,
    /// What the run was called.
    pub name: Option<String>,
    /// Where it was to compute: `cpu` or `cuda`; none leaves it to the machine.
    pub device: Option<&'static str>,
    /// Fields of the manifest, with the flags that they are of.
    pub fields: Vec<(&'static str, Value, String)>,
    /// What was left out, in words.
    pub notes: Vec<String>,
}

impl Flags {
    /// Of a command line: flags alone, or with the command before them.
    ///
    /// # Errors
    /// What is no flag of the script; class `Input`.
    pub fn parse(text: &str) -> Result<Self> {
        let words = words(text)?;
        let mut flags = Self::default();
        let mut words = words.iter().map(String::as_str).peekable();
        // What comes before the script's own flags: torchrun, its options, the module.
        let mut launcher = text.contains("base_train") || text.contains("torchrun");
        while let Some(word) = words.next() {
            if launcher {
                let value =
                    |name: &str| word.strip_prefix(name).map(|rest| rest.trim_start_matches('=').to_owned());
                let ranks = value("--nproc_per_node").or_else(|| value("--nproc-per-node"));
                if let Some(ranks) = ranks {
                    let ranks = if ranks.is_empty() { words.next().unwrap_or("").to_owned() } else { ranks };
                    flags.ranks = Some(ranks.parse().map_err(|_| {
                        Error::input(format!("--nproc_per_node is {ranks:?}"))
                            .expected("the number of processes")
                    })?);
                }
                if word == "--" || word.ends_with("base_train.py") {
                    launcher = false;
                } else if word.ends_with("base_train") {
                    // torchrun separates its own options.
                    launcher = words.peek() == Some(&"--");
                }
                continue;
            }
            let Some(flag) = word.strip_prefix("--") else {
                return Err(Error::input(format!("`{word}` is no flag of upstream's base_train"))
                    .expected("--name=value or --name value, as its command line has them"));
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let name = name.replace('-', "_");
            known(&name)?;
            let value = match value {
                Some(value) => value,
                None if name == "fp8" => "true".to_owned(),
                None => match words.next() {
                    Some(value) => value.to_owned(),
                    None => {
                        return Err(Error::input(format!("--{} has no value", name.replace('_', "-")))
                            .expected("--name=value"));
                    }
                },
            };
            flags.given.insert(name, value);
        }
        Ok(flags)
    }

    /// Of the metadata of a checkpoint; files of the optimizer's ranks beside them tell how many there were.
    ///
    /// # Errors
    /// A file that cannot be read, or that says nothing of flags; class `Input`.
    pub fn of_meta(path: &Path) -> Result<Self> {
        let meta = Meta::read(path)?;
        if meta.user_config.is_empty() {
            return Err(Error::input("it says nothing of the flags it was made with")
                .file(path)
                .expected("meta_NNNNNN.json of base_train, with user_config"));
        }
        let mut flags = Self {
            vocab_size: Some(meta.model_config.vocab_size as u64),
            ranks: ranks_beside(path, meta.step),
            ..Self::default()
        };
        for (name, value) in &meta.user_config {
            let text = match value {
                Json::Null => continue,
                Json::String(text) => text.clone(),
                other => other.to_string(),
            };
            known(name).map_err(|error| error.file(path))?;
            flags.given.insert(name.clone(), text);
        }
        flags.meta = Some(Box::new(meta));
        Ok(flags)
    }

    /// Leaves a flag out, as if it had not been given.
    ///
    /// # Errors
    /// One that was not given; class `Input`.
    pub fn without(&mut self, name: &str) -> Result<()> {
        let name = name.trim_start_matches('-').replace('-', "_");
        if self.given.remove(&name).is_none() {
            let given: Vec<String> = self.given.keys().map(|name| spelled(name)).collect();
            return Err(
                Error::input(format!("--without {name}: that flag was not given")).expected(given.join(", "))
            );
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite());
        number
            .map(Some)
            .ok_or_else(|| Error::input(format!("{} is {text:?}", spelled(name))).expected("a number"))
    }

    /// A whole number; upstream's -1 stands for none.
    fn count(&self, name: &str) -> Result<Option<i64>> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        if number.fract() != 0.0 || number.abs() > 9e15 {
            return Err(Error::input(format!("{} is {number}", spelled(name))).expected("a whole number"));
        }
        Ok(Some(number as i64))
    }

    /// What these flags are in a manifest of the recipe of `commit`, or of the newest that has them.
    ///
    /// # Errors
    /// A flag without a counterpart, by name; values that are none; class `Input`.
    pub fn understood(&self, commit: Option<&str>) -> Result<Understood> {
        let recipe = self.recipe(commit)?;
        self.refuse(recipe)?;
        let mut understood = Understood {
            recipe,
            name: ["model_tag", "run"]
                .iter()
                .find_map(|name| self.get(name))
                .filter(|name| !name.is_empty() && *name != "dummy")
                .map(str::to_owned),
            device: match self.get("device_type") {
                None | Some("") => None,
                Some("cpu") => Some("cpu"),
                Some(_) => Some("cuda"),
            },
            fields: Vec::new(),
            notes: Vec::new(),
        };
        self.budget(&mut understood)?;
        for (name, kind) in FLAGS {
            let Some(text) = self.get(name) else { continue };
            let flag = spelled(name);
            let field: Option<(&'static str, Value)> = match kind {
                Kind::Count(path) => {
                    self.count(name)?.filter(|count| *count > 0).map(|count| (*path, count.into()))
                }
                Kind::Number(path) => self.number(name)?.map(|number| (*path, number.into())),
                Kind::Text(path) => Some((*path, text.to_ascii_uppercase().into())),
                Kind::Nothing(why) => {
                    understood.notes.push(format!("{flag} is left out: {why}"));
                    None
                }
                Kind::Apart => None,
            };
            // No warm-up is 0 steps.
            let field = match (*name, field) {
                ("warmup_steps", None) => Some(("schedule.warmup_steps", 0.into())),
                (_, field) => field,
            };
            understood.fields.extend(field.map(|(path, value)| (path, value, flag)));
        }
        if let (Some(first), second) = (self.number("adam_beta1")?, self.number("adam_beta2")?) {
            let second = second.unwrap_or(recipe.optimizer.embedding.betas.1);
            let betas = Value::Array(vec![first.into(), second.into()]);
            for path in [
                "optimizer.unembedding_betas",
                "optimizer.embedding_betas",
                "optimizer.value_embeds_betas",
                "optimizer.resid_betas",
            ] {
                understood.fields.push((path, betas.clone(), "--adam-beta1, --adam-beta2".to_owned()));
            }
        }
        for (name, path) in [("eval_every", "eval.every"), ("save_every", "checkpoint.every")] {
            if let Some(every) = self.count(name)? {
                understood.fields.push((path, every.max(0).into(), spelled(name)));
            }
        }
        if self.count("core_metric_every")?.is_some_and(|every| every > 0) {
            understood.notes.push(
                "--core-metric-every is left out: with eval.core.bundle, the evaluation bundle's directory, CORE is \
                 measured"
                    .to_owned(),
            );
        }
        if let Some(ranks) = self.ranks.filter(|ranks| *ranks > 1) {
            let flag = "the rows of as many GPUs, read on one device".to_owned();
            understood.fields.push(("run.ranks", (ranks as i64).into(), flag));
        }
        let vocab = self.vocab_size.map_or(VOCAB_SIZE, |size| size as i64);
        understood.fields.push((
            "data.vocab_size",
            vocab.into(),
            "declared, and checked once the tokenizer is here".to_owned(),
        ));
        Ok(understood)
    }

    /// What has no counterpart.
    fn refuse(&self, recipe: &Recipe) -> Result<()> {
        let without = |flag: &str, why: &str, help: &str| {
            Err(Error::input(format!("{flag} has no counterpart: {why}"))
                .expected("flags of a run that nanorun can make")
                .help(help))
        };
        if self.get("fp8").is_some_and(|value| !matches!(value, "false" | "False" | "0")) {
            return without(
                "--fp8",
                "nanorun computes in f32 and bf16",
                "--without fp8 writes the manifest of the same run in bf16, whose numbers are others",
            );
        }
        if self.get("device_type") == Some("mps") {
            return without(
                "--device-type=mps",
                "there is no such backend",
                "--without device-type takes one of this machine's",
            );
        }
        if self.count("resume_from_step")?.is_some_and(|step| step > 0) {
            return without(
                "--resume-from-step",
                "a manifest of flags begins at step 0",
                "`nanorun import CHECKPOINT` writes the manifest that trains a checkpoint on; --without resume-from-step \
                 leaves it out",
            );
        }
        for name in ["warmup_ratio", "warmup_steps", "adam_beta1", "adam_beta2"] {
            if self.get(name).is_some() && !has_flag(recipe, name) {
                return Err(Error::input(format!(
                    "base_train of {} has no {}",
                    recipe.short(),
                    spelled(name)
                ))
                .expected(format!(
                    "--commit with one that has it: {}",
                    RECIPES
                        .iter()
                        .filter(|recipe| has_flag(recipe, name))
                        .map(Recipe::short)
                        .collect::<Vec<_>>()
                        .join(", ")
                )));
            }
        }
        Ok(())
    }

    /// The first of iterations, FLOPs and ratio that is given decides, as upstream has it; without any, the recipe's ratio.
    fn budget(&self, understood: &mut Understood) -> Result<()> {
        let recipe = understood.recipe;
        let ratio = self.number("target_param_data_ratio")?;
        let own = ratio.filter(|ratio| *ratio > 0.0).unwrap_or(recipe.schedule.param_data_ratio);
        let (path, value, name): (_, Value, _) =
            if let Some(steps) = self.count("num_iterations")?.filter(|n| *n > 0) {
                ("budget.steps", steps.into(), "num_iterations")
            } else if let Some(flops) = self.number("target_flops")?.filter(|flops| *flops > 0.0) {
                ("budget.flops", flops.into(), "target_flops")
            } else {
                ("budget.param_data_ratio", own.into(), "target_param_data_ratio")
            };
        // The laws take the ratio whatever the budget is; here they take the recipe's where another budget is set.
        let asks_for_law = recipe.optimizer.weight_decay_law == WeightDecayLaw::Horizon
            || recipe.data.total_batch_size == BatchRule::Auto
                && self.count("total_batch_size")?.is_none_or(|n| n <= 0);
        if path != "budget.param_data_ratio"
            && asks_for_law
            && let Some(ratio) = ratio.filter(|ratio| *ratio != recipe.schedule.param_data_ratio)
        {
            return Err(Error::input(format!(
                "--target-param-data-ratio={ratio} beside {} has no counterpart: the laws of batch and decay would take \
                 the recipe's ratio, {}",
                spelled(name),
                recipe.schedule.param_data_ratio
            ))
            .expected("one of them")
            .help("--without target-param-data-ratio leaves it out, with other numbers"));
        }
        let flag = if self.get(name).is_some() { spelled(name) } else { "the script's own".to_owned() };
        understood.fields.push((path, value, flag));
        Ok(())
    }

    fn recipe(&self, commit: Option<&str>) -> Result<&'static Recipe> {
        let lines = |recipes: &[&'static Recipe]| {
            let lines = recipes.iter().map(|recipe| format!("{}  {}", recipe.short(), recipe.note));
            format!("--commit with one of\n    {}", lines.collect::<Vec<_>>().join("\n    "))
        };
        let all: Vec<&'static Recipe> = RECIPES.iter().collect();
        if let Some(commit) = commit {
            return upstream::find(commit).map_err(|unknown| {
                Error::input(format!("--commit {commit}: {unknown}")).expected(lines(&all))
            });
        }
        let told = ["warmup_ratio", "warmup_steps", "adam_beta1", "adam_beta2"];
        let has_all = |recipe: &&'static Recipe| {
            told.iter().all(|name| self.get(name).is_none() || has_flag(recipe, name))
        };
        let Some(meta) = &self.meta else {
            let newest = all.iter().rev().find(|recipe| has_all(recipe)).copied();
            return newest.ok_or_else(|| {
                Error::input("no commit that is known here has all of these flags").expected(lines(&all))
            });
        };
        let fits: Vec<&'static Recipe> = RECIPES
            .iter()
            .enumerate()
            .filter(|(index, recipe)| writes_such_metadata(*index, recipe, meta))
            .map(|(_, recipe)| recipe)
            .collect();
        match fits.as_slice() {
            [one] => Ok(one),
            [] => {
                Err(Error::input("no commit that is known here writes such metadata").expected(lines(&all)))
            }
            several => Err(Error::input("its metadata do not tell by which commit it was trained")
                .expected(lines(several))),
        }
    }
}

/// Whether a commit's script has a flag that others do not have.
fn has_flag(recipe: &Recipe, name: &str) -> bool {
    let by_ratio = matches!(recipe.schedule.warmup, WarmupRule::Ratio(_));
    match name {
        "warmup_ratio" | "adam_beta1" | "adam_beta2" => by_ratio,
        "warmup_steps" => !by_ratio,
        _ => true,
    }
}

fn spelled(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

fn known(name: &str) -> Result<()> {
    if FLAGS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let error = Error::input(format!("{} is no flag of upstream's base_train", spelled(name)));
    Err(match nearest(name, FLAGS.iter().map(|(known, _)| *known)) {
        Some(near) => error.help(format!("did you mean `{}`?", spelled(near))),
        None => error.expected("a flag that its --help lists, at one of the pinned commits"),
    })
}

/// Files of the optimizer's ranks beside metadata.
fn ranks_beside(meta: &Path, step: u64) -> Option<u64> {
    let dir = meta.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!("optim_{step:06}_rank");
    let names =
        std::fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_rank =
        |name: &String| name.strip_prefix(&prefix).is_some_and(|rest| rest.strip_suffix(".pt").is_some());
    let count = names.filter(is_rank).count();
    (count > 0).then_some(count as u64)
}

/// Words of a command line, as a shell parts them: blanks, quotes and backslashes.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('\\', None) => match letters.next() {
                // A line that goes on.
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(
            Error::input("a quote is not closed in --from-flags").expected("flags as a shell takes them")
        );
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Understood {
        Flags::parse(text).unwrap().understood(None).unwrap()
    }

    fn value(understood: &Understood, path: &str) -> Option<Value> {
        understood.fields.iter().find(|(known, ..)| *known == path).map(|(_, value, _)| value.clone())
    }

    #[test]
    fn flags_are_fields() {
        let found = understood(
            "OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=24 \\\n \
             --target-param-data-ratio=9.5 --device-batch-size 16 --run=\"d24 run\" --window-pattern=sl --warmup-steps=0",
        );
        assert_eq!(found.recipe.short(), "92d63d4");
        assert_eq!(found.name.as_deref(), Some("d24 run"));
        for (path, expected) in [
            ("model.depth", Value::from(24)),
            ("budget.param_data_ratio", Value::from(9.5)),
            ("train.device_batch_size", Value::from(16)),
            ("run.ranks", Value::from(8)),
            ("model.window_pattern", Value::from("SL")),
            ("schedule.warmup_steps", Value::from(0)),
            ("data.vocab_size", Value::from(32768)),
        ] {
            assert_eq!(value(&found, path), Some(expected), "{path}");
        }
        assert_eq!(value(&found, "budget.steps"), None);
        // As upstream decides among horizons.
        let found = understood("--num-iterations=100 --target-flops=1e18");
        assert_eq!(value(&found, "budget.steps"), Some(100.into()));
        let found = understood("--num-iterations=-1 --target-flops=1e18");
        assert_eq!(value(&found, "budget.flops"), Some(1e18.into()));
        assert_eq!(value(&understood("--depth=4"), "budget.param_data_ratio"), Some(12.0.into()));
        // Flags of older scripts lead to the newest commit that has them.
        let found = understood("--warmup-ratio=0.1 --adam-beta1=0.9");
        assert!(matches!(found.recipe.schedule.warmup, WarmupRule::Ratio(_)));
        assert_eq!(value(&found, "optimizer.resid_betas"), Some(Value::Array(vec![0.9.into(), 0.95.into()])));
    }

    #[test]
    fn what_has_no_counterpart_is_said_by_name() {
        for (text, said) in [
            ("--fp8", "--fp8 has no counterpart"),
            ("--device-type=mps", "--device-type=mps has no counterpart"),
            ("--resume-from-step=100", "--resume-from-step has no counterpart"),
            (
                "--num-iterations=10 --target-param-data-ratio=20",
                "--target-param-data-ratio=20 beside --num-iterations",
            ),
            ("--dpeth=3", "--dpeth is no flag"),
            ("--depth", "--depth has no value"),
            ("--depth=x", "--depth is \"x\""),
            ("depth=3", "`depth=3` is no flag"),
            ("--run='a", "a quote is not closed"),
        ] {
            let error = Flags::parse(text).and_then(|flags| flags.understood(None).map(|_| ())).unwrap_err();
            assert!(error.what().contains(said), "{text}: {error}");
            assert_eq!(error.class().exit_code(), 2);
        }
        let mut flags = Flags::parse("--fp8 --depth=3").unwrap();
        flags.without("--fp8").unwrap();
        flags.understood(None).unwrap();
        assert!(flags.without("fp8").is_err());
        let error = Flags::parse("--warmup-ratio=0.1").unwrap().understood(Some("92d63d4")).unwrap_err();
        assert!(error.what().contains("base_train of 92d63d4 has no --warmup-ratio"), "{error}");
    }
}
