//! Which commit's recipe a checkpoint is of: told by its tensors and metadata, as far as it matters.

use toml::Value;

use super::meta::Meta;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::upstream::{self, ModelRecipe, RECIPES, Recipe, WarmupRule};

/// The recipe of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Of the commit that was asked for, else the newest that fits.
    pub recipe: &'static Recipe,
    /// Fields of the manifest in which its tensors depart from the recipe.
    pub fields: Vec<(&'static str, Value)>,
    /// How it was told.
    pub how: String,
}

/// From this commit on (2f09686) the metadata may say the total batch; before, they never do.
const SAYS_TOTAL_BATCH: usize = 3;

/// What of a model's forward its tensors show.
struct Shown {
    ve_gate_channels: Option<usize>,
    smear_channels: Option<usize>,
    backout: bool,
}

impl Shown {
    fn of(meta: &Meta, weights: &Weights) -> Self {
        let gate = format!("transformer.h.{}.attn.ve_gate.weight", meta.model_config.n_layer - 1);
        let columns = |name: &str| weights.shape(name)?.get(1).copied();
        Self {
            ve_gate_channels: columns(&gate).filter(|_| weights.has_any("value_embeds.")),
            smear_channels: columns("smear_gate.weight"),
            backout: weights.shape("backout_lambda").is_some(),
        }
    }

    /// Where they depart from a recipe.
    fn departures(&self, recipe: &ModelRecipe) -> Vec<(&'static str, Value)> {
        let mut fields = Vec::new();
        let mut switch = |path, on: bool, by_recipe: bool| {
            if on != by_recipe {
                fields.push((path, Value::Boolean(on)));
            }
        };
        switch("model.value_embeds", self.ve_gate_channels.is_some(), recipe.value_embeds);
        switch("model.smear", self.smear_channels.is_some(), recipe.smear);
        switch("model.backout", self.backout, recipe.backout);
        for (path, found, by_recipe) in [
            ("model.ve_gate_channels", self.ve_gate_channels, recipe.ve_gate_channels),
            ("model.smear_channels", self.smear_channels, recipe.smear_channels),
        ] {
            if let Some(channels) = found.filter(|&channels| channels != by_recipe) {
                fields.push((path, Value::Integer(channels as i64)));
            }
        }
        fields
    }
}

/// Whether metadata are such as a commit's base_train writes; metadata of other scripts say nothing of it.
pub(super) fn writes_such_metadata(index: usize, recipe: &Recipe, meta: &Meta) -> bool {
    let has = |flag: &str| meta.user_config.contains_key(flag);
    if !has("target_param_data_ratio") {
        return true;
    }
    let warmup = match recipe.schedule.warmup {
        WarmupRule::Steps(_) => has("warmup_steps"),
        WarmupRule::Ratio(_) => has("warmup_ratio"),
    };
    let total =
        if meta.total_batch_size.is_some() { index >= SAYS_TOTAL_BATCH } else { index <= SAYS_TOTAL_BATCH };
    warmup && total && has("fp8") == (index > 0)
}

/// What decides a forward, by field, as far as no tensor shows it.
fn hidden(recipe: &ModelRecipe, shown: &Shown, windows: bool) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("model.softcap", recipe.softcap.to_string()),
        ("model.rope_base", recipe.rope_base.to_string()),
        ("model.rotary_precision", format!("{:?}", recipe.rotary_precision).to_lowercase()),
        ("model.qk_scale", recipe.qk_scale.to_string()),
        ("model.norm_eps", recipe.norm_eps.to_string()),
    ];
    if windows {
        fields.push(("model.short_window", format!("{:?}", recipe.short_window).to_lowercase()));
    }
    if shown.ve_gate_channels.is_some() {
        fields.push(("model.ve_gate_scale", recipe.ve_gate_scale.to_string()));
    }
    fields
}

/// What decides how a model is trained further, besides the flags and constants that the files say.
fn training(recipe: &Recipe) -> String {
    let (muon, data) = (&recipe.optimizer.muon, &recipe.data);
    format!("{muon:?} {:?} {:?} {data:?}", recipe.optimizer.weight_decay_law, recipe.schedule)
}

/// Tells the recipe of a checkpoint. `asked` is a commit; `settled` are fields that were set by hand, which therefore
/// need not be told; `trains` asks for all that training on takes, not the forward alone.
///
/// # Errors
/// An unknown commit; tensors that no commit's model has, or that several commits' models have which compute
/// differently; class `Input`.
pub(super) fn tell(
    meta: &Meta,
    weights: &Weights,
    asked: Option<&str>,
    settled: &dyn Fn(&str) -> bool,
    trains: bool,
) -> Result<Told> {
    let shown = Shown::of(meta, weights);
    let told =
        |recipe: &'static Recipe, how: String| Told { recipe, fields: shown.departures(&recipe.model), how };
    let known = || {
        let lines = RECIPES.iter().map(|recipe| format!("{}  {}", recipe.short(), recipe.note));
        format!("--commit with one of\n    {}", lines.collect::<Vec<_>>().join("\n    "))
    };
    if let Some(asked) = asked {
        let recipe = upstream::find(asked)
            .map_err(|unknown| Error::input(format!("--commit {asked}: {unknown}")).expected(known()))?;
        return Ok(told(recipe, format!("the recipe of {}, as asked for", recipe.short())));
    }
    let fits = |(index, recipe): &(usize, &'static Recipe)| {
        let model = &recipe.model;
        let older = shown.ve_gate_channels.is_none() && shown.smear_channels.is_none() && !shown.backout;
        let tensors = if older {
            // From before the first commit that is known here, whose model it is but for the value embeddings.
            *index == 0
        } else {
            shown.ve_gate_channels == model.value_embeds.then_some(model.ve_gate_channels)
                && shown.smear_channels == model.smear.then_some(model.smear_channels)
                && shown.backout == model.backout
        };
        // Scripts of before it had its flags, and others.
        tensors
            && (older && !meta.user_config.contains_key("fp8") || writes_such_metadata(*index, recipe, meta))
    };
    let candidates: Vec<&'static Recipe> =
        RECIPES.iter().enumerate().filter(fits).map(|(_, recipe)| recipe).collect();
    let Some(newest) = candidates.last().copied() else {
        return Err(Error::input(
            "no commit that is known here makes a model with these tensors and metadata",
        )
        .expected(known())
        .help("name the commit nearest to it; its features follow the tensors, and --set changes the rest"));
    };
    let windows =
        meta.model_config.window_pattern.as_ref().is_some_and(|pattern| pattern.contains(['s', 'S']));
    let essence = |recipe: &Recipe| {
        let mut fields = hidden(&recipe.model, &shown, windows);
        fields.retain(|(path, _)| !settled(path));
        fields
    };
    let mut open: Vec<String> = Vec::new();
    for (at, (path, _)) in essence(newest).into_iter().enumerate() {
        let values: Vec<String> = candidates
            .iter()
            .filter_map(|recipe| Some(format!("{} by {}", essence(recipe).get(at)?.1, recipe.short())))
            .collect();
        let distinct: std::collections::BTreeSet<_> =
            candidates.iter().filter_map(|recipe| Some(essence(recipe).get(at)?.1.clone())).collect();
        if distinct.len() > 1 {
            open.push(format!("{path} is {}", values.join(", ")));
        }
    }
    if !open.is_empty() {
        return Err(Error::input("its tensors and metadata do not tell by which commit it computes")
            .expected(format!("--commit, or --set with the field:\n    {}", open.join("\n    "))));
    }
    if trains && candidates.iter().any(|recipe| training(recipe) != training(newest)) {
        let names: Vec<String> =
            candidates.iter().map(|recipe| format!("{}  {}", recipe.short(), recipe.note)).collect();
        return Err(Error::input("its tensors and metadata do not tell by which commit it was trained")
            .expected(format!("--commit with one of\n    {}", names.join("\n    "))));
    }
    let names: Vec<&str> = candidates.iter().map(|recipe| recipe.short()).collect();
    let how = match names.as_slice() {
        [one] => format!("its tensors and metadata are those of {one}"),
        _ => format!("its tensors and metadata are those of {}, which compute alike", names.join(", ")),
    };
    Ok(told(newest, how))
}
