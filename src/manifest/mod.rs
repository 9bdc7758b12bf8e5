//! The manifest: TOML as written, layered, expanded into cells, each settled in the manifest's own terms.
//!
//! Passes: `document` (values with their lines), `layers` (key paths checked against the table in `fields`,
//! laid over each other), `matrix` (cells), `settings` (a cell with a value for every field, the recipe of its
//! commit filling what is missing). Knows recipes, but no sizes: those are the plan's.

pub mod cluster;
mod document;
mod draft;
pub mod effect;
mod expand;
pub mod field;
pub mod fields;
mod layers;
mod matrix;
mod pins;
mod read;
mod reference;
mod schema;
pub mod settings;
mod spelling;
mod tables;
mod vary;
pub(crate) use spelling::nearest;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;

pub use self::cluster::ClusterSettings;
use self::document::Node;
pub use self::draft::Draft;
use self::field::{Context, Fallback};
use self::layers::Layer;
pub use self::layers::Origin;
use self::matrix::Matrix;
pub use self::matrix::{Label, SEED};
pub use self::pins::with_pins;
pub use self::reference::markdown as reference_markdown;
pub use self::schema::json_schema;
use self::settings::{DeviceBatch, InitChoice, ModelKind, OneOrMany, OptimizerKind, TokenizerChoice};
pub use self::settings::{Head, Settings};
pub use self::vary::{Condition, Variation};
use crate::error::{Error, Result};
use crate::upstream::{self, RECIPES};

/// What lies over the file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set` arguments, `path=value`.
    pub sets: Vec<String>,
    /// `--only` arguments, `path=value`.
    pub only: Vec<String>,
    /// Environment variables: `NANORUN_A__B_C`, and what paths refer to.
    pub env: Vec<(String, String)>,
}

/// A manifest, expanded and settled.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file it was read from.
    pub file: PathBuf,
    /// The text as written.
    pub text: String,
    /// The profile laid over it.
    pub profile: Option<String>,
    /// The `--set` arguments laid over it.
    pub sets: Vec<String>,
    /// The `--only` arguments.
    pub only: Vec<String>,
    /// In what it departs from the file and its profile; what does goes to a directory of its own.
    pub variation: Variation,
    /// What picks the cells that a command is about; without any it is about all.
    pub selection: Vec<Condition>,
    /// The environment variables laid over it, by name, and those that paths in it may refer to.
    pub env: BTreeMap<String, String>,
    /// Name, question, scorecard.
    pub head: Head,
    /// Where name, question and scorecard were written, by key path.
    head_origins: BTreeMap<String, Origin>,
    /// What `[cluster]` says, as far as it says something.
    cluster: Layer,
    /// Values that mark the control arm, by key path; empty is the base; none is no comparison.
    pub control: Option<BTreeMap<String, Value>>,
    /// Arms that were given a name.
    pub labels: Vec<Label>,
    /// Its cells, in order; at least one.
    pub cells: Vec<Cell>,
}

/// A cell of the matrix.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What the matrix sets, by key path.
    pub overrides: BTreeMap<String, Value>,
    /// Every field, with the recipe's values where nothing else was said.
    pub settings: Settings,
    /// Whether it is among those that the command is about.
    pub selected: bool,
    /// Where values that were written stand.
    origins: BTreeMap<String, Origin>,
    /// The manifest, for what was not written.
    file: PathBuf,
}

impl Cell {
    /// Adds a key path and where it was written; of one that was not, the file alone.
    pub fn locate(&self, path: &str, error: Error) -> Error {
        match self.origins.get(path) {
            Some(origin) => origin.locate(error.key(path)),
            None => error.key(path).file(&self.file),
        }
    }

    /// Whether the manifest, and not the recipe, says what this field is.
    pub fn is_written(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }

    /// What the matrix sets besides the seed: the arm.
    pub fn arm(&self) -> BTreeMap<String, Value> {
        self.overrides.iter().filter(|(path, _)| *path != SEED).map(|(p, v)| (p.clone(), v.clone())).collect()
    }
}

impl Manifest {
    /// Reads and settles a file.
    pub fn load(file: &Path, options: &Options) -> Result<Self> {
        Self::parse(file, &read::read(file)?, options)
    }

    /// Settles `text`; `file` is what errors name.
    pub fn parse(file: &Path, text: &str, options: &Options) -> Result<Self> {
        let root = document::parse(file, text)?;
        let origin = Origin::File(file.to_owned(), 1);
        let mut base = Layer::new();
        layers::flatten(&root, "", &origin, &["profile", "matrix"], &mut base)?;
        layers::check_groups(&base)?;
        let mut matrix = match root.get("matrix") {
            Some(node) => Matrix::read(node, &origin)?,
            None => Matrix::default(),
        };
        let mut control = read_control(&root, &origin)?;

        let profiles = read_profiles(&root, &origin)?;
        if let Some(name) = &options.profile {
            let Some(profile) = profiles.into_iter().find(|profile| profile.name == *name) else {
                return Err(unknown_profile(&root, name).file(file));
            };
            // A baseline belongs to what it was made from.
            base.remove("scorecard.reproducibility.baseline");
            layers::lay_over(&mut base, &profile.layer);
            matrix.lay_over(profile.matrix);
            control = profile.control.or(control);
        }
        let mut over = layers::from_env(&options.env)?;
        layers::lay_over(&mut over, &layers::from_sets(&options.sets)?);
        let views = matrix.take_views(&mut over);
        let axes = matrix.paths();
        let own = base.clone();
        layers::lay_over(&mut base, &over);
        matrix.collapse(&over);
        let control = control.map(|control| {
            control
                .into_iter()
                .filter(|(path, _)| !over.contains_key(path))
                .map(|(p, e)| (p, e.value))
                .collect()
        });

        let head = settle_head(&base, file, &options.env)?;
        let head_origins = base
            .iter()
            .filter(|(path, _)| is_head(path))
            .map(|(path, entry)| (path.clone(), entry.origin.clone()))
            .collect();
        let strict = options.profile.is_none() && over.is_empty();
        let overrides = matrix.expand(&base, strict)?;
        require(&base, &overrides, file)?;
        let asked = vary::concerned(&over);
        let pairs: Vec<_> = overrides
            .iter()
            .filter(|_| !over.is_empty())
            .map(|cell| (vary::values(&own, cell, &asked), vary::values(&base, cell, &asked)))
            .collect();
        let variation = Variation::of(&over, &axes, &pairs);
        let selection = vary::conditions(&options.only, views)?;
        let selected = select(&base, &overrides, &selection)?;
        let cells = overrides
            .into_iter()
            .zip(selected)
            .map(|(overrides, selected)| {
                Ok(Cell { selected, ..settle(&base, overrides, file, &options.env)? })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            file: file.to_owned(),
            text: text.to_owned(),
            profile: options.profile.clone(),
            sets: options.sets.clone(),
            only: options.only.clone(),
            variation,
            selection,
            env: layers::env_fields(&options.env).into_iter().chain(referenced(text, options)).collect(),
            head,
            head_origins,
            cluster: cluster::written(&base),
            control,
            labels: matrix.labels(),
            cells,
        })
    }

    /// Adds the key path of a field that no cell changes, and where it was written; of one that was not, the file alone.
    pub fn locate_head(&self, path: &str, error: Error) -> Error {
        match self.head_origins.get(path) {
            Some(origin) => origin.locate(error.key(path)),
            None => error.key(path).file(&self.file),
        }
    }

    /// `[cluster]` with what `cluster.file` adds to it.
    ///
    /// # Errors
    /// A file that is not there, or holds something else.
    pub fn cluster(&self) -> Result<ClusterSettings> {
        let Some(file) = &self.head.cluster.file else { return cluster::with_file(&self.cluster, None) };
        let env: Vec<_> = self.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let file = expand::path(file, &env).map_err(|error| self.locate_head("cluster.file", error))?;
        cluster::with_file(&self.cluster, Some(Path::new(&file)))
    }

    /// Whether a device batch size is still to be searched for.
    pub fn asks_for_batch_search(&self) -> bool {
        self.cells.iter().any(|cell| cell.settings.train.device_batch_size.rows().is_none())
    }

    /// Gives the cells that ask for a search what it found.
    pub fn settle_device_batch(&mut self, rows: usize) {
        for train in self.cells.iter_mut().map(|cell| &mut cell.settings.train) {
            train.device_batch_size = DeviceBatch::Rows(train.device_batch_size.rows().unwrap_or(rows));
        }
    }

    /// The cells that the command is about.
    pub fn selected_cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.selected)
    }

    /// Whether the command is about some of the cells alone.
    pub fn is_view(&self) -> bool {
        self.cells.iter().any(|cell| !cell.selected)
    }

    /// The directory name under `results/`: `<name>`, `<name>@<profile>` under a profile, and of a variation of either
    /// `~<8 hex>` behind it.
    pub fn results_name(&self) -> String {
        let mut name = self.head.name.clone();
        if let Some(profile) = &self.profile {
            name.push('@');
            name.push_str(profile);
        }
        if !self.variation.is_empty() {
            name.push('~');
            name.push_str(&self.variation.hex());
        }
        name
    }
}

/// Which cells every condition picks.
fn select(base: &Layer, cells: &[Layer], conditions: &[Condition]) -> Result<Vec<bool>> {
    if conditions.is_empty() {
        return Ok(vec![true; cells.len()]);
    }
    let asked = conditions.iter().map(|condition| condition.path.as_str()).collect();
    let values: Vec<_> = cells.iter().map(|cell| vary::values(base, cell, &asked)).collect();
    let mut picked = vec![true; cells.len()];
    for condition in conditions {
        // Those that the conditions before it leave: what they have is what could be asked for.
        let mut there: Vec<Value> = Vec::new();
        for (picked, values) in picked.iter_mut().zip(&values).filter(|(picked, _)| **picked) {
            let value = values.get(&condition.path);
            if let Some(value) = value.filter(|value| !there.contains(value)) {
                there.push(value.clone());
            }
            *picked = condition.picks(value);
        }
        if !picked.contains(&true) {
            return Err(condition.picks_nothing(&there));
        }
    }
    Ok(picked)
}

/// What a cell's words say of its model and its optimizer.
fn kinds(model: Option<&str>, optimizer: Option<&str>) -> (ModelKind, OptimizerKind) {
    let model = match model {
        Some("microgpt") => ModelKind::Microgpt,
        Some("bigram") => ModelKind::Bigram,
        _ => ModelKind::Gpt,
    };
    let optimizer = match (optimizer, model) {
        (Some("sgd"), _) => OptimizerKind::Sgd,
        (Some("adamw"), _) | (None, ModelKind::Microgpt | ModelKind::Bigram) => OptimizerKind::Adamw,
        _ => OptimizerKind::MuonAdamw,
    };
    (model, optimizer)
}

/// The variables that something in the text or in the layers over it may refer to, as far as they are set.
fn referenced(text: &str, options: &Options) -> BTreeMap<String, String> {
    let over = options
        .sets
        .iter()
        .chain(options.env.iter().filter_map(|(name, value)| name.starts_with("NANORUN_").then_some(value)));
    let texts: Vec<&str> = std::iter::once(text).chain(over.map(String::as_str)).collect();
    let refers = |name: &str| {
        let (plain, braced) = (format!("${name}"), format!("${{{name}}}"));
        texts.iter().any(|text| {
            (name == "HOME" && text.contains("~/")) || text.contains(&plain) || text.contains(&braced)
        })
    };
    options.env.iter().filter(|(name, _)| !name.is_empty() && refers(name)).cloned().collect()
}

struct Profile {
    name: String,
    layer: Layer,
    matrix: Matrix,
    control: Option<Layer>,
}

/// Every profile, so that a mistake in one shows whichever is used.
fn read_profiles(root: &Node, origin: &Origin) -> Result<Vec<Profile>> {
    let Some(node) = root.get("profile") else { return Ok(Vec::new()) };
    let mut profiles = Vec::new();
    for (name, node) in node.entries() {
        if !node.is_table() || field::Kind::Name.accept(&Value::String(name.clone())).is_none() {
            let what = format!("a profile cannot be {name} = {}", layers::brief(&node.value()));
            let error = Error::input(what).key(format!("profile.{name}")).expected("[profile.NAME]");
            return Err(line_of(origin, node).locate(error));
        }
        let mut layer = Layer::new();
        layers::flatten(node, "", &line_of(origin, node), &["matrix"], &mut layer)?;
        layers::check_groups(&layer)?;
        let matrix = match node.get("matrix") {
            Some(matrix) => Matrix::read(matrix, origin)?,
            None => Matrix::default(),
        };
        profiles.push(Profile { name: name.clone(), layer, matrix, control: read_control(node, origin)? });
    }
    Ok(profiles)
}

/// `[scorecard.control]`: fields and the values that the control arm has.
fn read_control(node: &Node, origin: &Origin) -> Result<Option<Layer>> {
    let Some(control) = node.get("scorecard").and_then(|scorecard| scorecard.get("control")) else {
        return Ok(None);
    };
    let place = line_of(origin, control);
    if !control.is_table() {
        let error = Error::input("scorecard.control is no table").key("scorecard.control");
        return Err(place.locate(error.expected("a table of fields and their values in the control arm")));
    }
    let mut layer = Layer::new();
    layers::flatten(control, "", &place, &[], &mut layer)?;
    if let Some((path, entry)) = layer.iter().find(|(path, _)| !fields::is_sweepable(path)) {
        return Err(entry.origin.locate(matrix::not_sweepable(path)));
    }
    Ok(Some(layer))
}

fn line_of(origin: &Origin, node: &Node) -> Origin {
    match origin {
        Origin::File(file, _) => Origin::File(file.clone(), node.line),
        other => other.clone(),
    }
}

fn unknown_profile(root: &Node, name: &str) -> Error {
    let known: Vec<&str> =
        root.get("profile").map_or(&[][..], Node::entries).iter().map(|(name, _)| name.as_str()).collect();
    let error = Error::input(format!("there is no profile {name}")).key(format!("profile.{name}"));
    let error = match known.as_slice() {
        [] => error.expected("no --profile: this manifest has none"),
        known => error.expected(known.join(", ")),
    };
    match spelling::nearest(name, known) {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None => error,
    }
}

/// What every manifest pins; an axis may pin it for its cells.
fn require(base: &Layer, cells: &[Layer], file: &Path) -> Result<()> {
    let budget: &[&str] = &["budget.steps", "budget.tokens", "budget.flops", "budget.param_data_ratio"];
    let has = |cell: &Layer, path: &str| base.contains_key(path) || cell.contains_key(path);
    let required = fields::all().filter(|field| matches!(field.default, Fallback::Required));
    let mut missing: Vec<&str> =
        required.map(|field| field.path).filter(|path| cells.iter().any(|cell| !has(cell, path))).collect();
    if cells.iter().any(|cell| !budget.iter().any(|path| has(cell, path))) {
        missing.push("budget");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for path in &missing {
        lines.push(match *path {
            "budget" => {
                "[budget] with one of steps, tokens, flops, param_data_ratio, such as param_data_ratio = 12"
                    .to_owned()
            }
            "upstream.commit" => format!("[upstream] commit = \"{}\"", upstream::newest().commit),
            path => {
                let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
                let value = match path {
                    "name" => "\"my_experiment\"",
                    "run.seed" => "42",
                    "run.backend" => "\"cpu\"",
                    _ => "\"linear\"",
                };
                if section.is_empty() {
                    format!("{key} = {value}")
                } else {
                    format!("[{section}] {key} = {value}")
                }
            }
        });
    }
    let noun = if missing.len() == 1 { "a required field is" } else { "required fields are" };
    let error = Error::input(format!("{noun} missing: {}", missing.join(", "))).file(file);
    Err(error.expected(format!("what decides the result to be pinned:\n    {}", lines.join("\n    "))))
}

fn settle_head(base: &Layer, file: &Path, env: &[(String, String)]) -> Result<Head> {
    if !base.contains_key("name") {
        require(base, &[Layer::new()], file)?;
    }
    let head = is_head;
    // The head's defaults depend on nothing.
    let context =
        Context { recipe: upstream::newest(), model: ModelKind::Gpt, optimizer: OptimizerKind::MuonAdamw };
    let defaults = layers::defaults(&context, base).into_iter().filter(|(path, _)| head(path)).collect();
    let written = base.iter().filter(|(path, _)| head(path));
    let written = written.map(|(path, entry)| (path.as_str(), entry.value.clone())).collect();
    let mut head: Head = layers::extract(&[defaults, written])?;
    cluster::check_extra(base)?;
    if let Some(baseline) = &mut head.scorecard.reproducibility.baseline {
        const PATH: &str = "scorecard.reproducibility.baseline";
        *baseline = expand::path(baseline, env).map_err(|error| {
            let error = error.key(PATH);
            base.get(PATH).iter().fold(error, |error, entry| entry.origin.locate(error))
        })?;
    }
    Ok(head)
}

/// Whether the field is of what no cell changes.
fn is_head(path: &str) -> bool {
    matches!(path, "name" | "question" | "hypothesis")
        || path.starts_with("scorecard.")
        || path.starts_with("analysis.")
        || path.starts_with("cluster.")
}

/// Lays a cell over the base, fills it from its commit's recipe and checks what concerns several fields.
fn settle(base: &Layer, overrides: Layer, file: &Path, env: &[(String, String)]) -> Result<Cell> {
    let mut set = base.clone();
    layers::lay_over(&mut set, &overrides);
    set.retain(|path, _| !is_head(path));

    let commit =
        set.get("upstream.commit").and_then(|entry| entry.value.as_str()).unwrap_or_default().to_owned();
    let recipe = match (upstream::find(&commit), set.get_mut("upstream.commit")) {
        (Ok(recipe), Some(entry)) => {
            entry.value = Value::String(recipe.commit.to_owned());
            recipe
        }
        (Ok(_), None) => return Err(Error::internal("a cell without a commit").file(file)),
        (Err(unknown), entry) => {
            let known: Vec<String> =
                RECIPES.iter().map(|recipe| format!("{}  {}", recipe.short(), recipe.note)).collect();
            let error = Error::input(format!("upstream.commit {commit:?}: {unknown}"))
                .key("upstream.commit")
                .expected(format!("one of\n    {}", known.join("\n    ")));
            let begun: String = commit.chars().take(7).collect();
            let error = match spelling::nearest(&begun, RECIPES.iter().map(upstream::Recipe::short)) {
                Some(meant) => error.help(format!("did you mean \"{meant}\"?")),
                None => error,
            };
            return Err(entry.iter().fold(error, |error, entry| entry.origin.locate(error)));
        }
    };
    let word = |path: &str| set.get(path).and_then(|entry| entry.value.as_str());
    let (model, optimizer) = kinds(word("model.kind"), word("optimizer.kind"));
    if optimizer == OptimizerKind::MuonAdamw && model != ModelKind::Gpt {
        let error = Error::input("only model.kind = \"gpt\" has optimizer.kind = \"muon_adamw\"")
            .key("optimizer.kind")
            .expected("\"adamw\" or \"sgd\"");
        return Err(set.get("optimizer.kind").iter().fold(error, |error, entry| entry.origin.locate(error)));
    }
    // Where the matrix sweeps the kind, the base may hold fields of the other arms' kinds.
    let swept = overrides.contains_key("model.kind") || overrides.contains_key("optimizer.kind");
    for (path, entry) in &set {
        let Some(field) = fields::find(path) else { continue };
        if swept && !overrides.contains_key(path) {
            continue;
        }
        if !field.applies.to(model, optimizer) {
            let kind = word("model.kind").unwrap_or("gpt");
            let optimizer = match optimizer {
                OptimizerKind::MuonAdamw => "muon_adamw",
                OptimizerKind::Adamw => "adamw",
                OptimizerKind::Sgd => "sgd",
            };
            let what = format!("model.kind = \"{kind}\" with optimizer.kind = \"{optimizer}\" has no {path}");
            let error = Error::input(what).key(path.as_str());
            let error = entry.origin.locate(error.expected(format!("it only with {}", field.applies.text())));
            return Err(match (model, path.as_str()) {
                (ModelKind::Gpt, "model.n_embd" | "model.n_head") => error.help(
                    "gpt is depth * aspect_ratio wide, rounded up to a multiple of head_dim, and has a head every \
                     head_dim channels",
                ),
                _ => error,
            });
        }
    }

    let defaults = layers::defaults(&Context { recipe, model, optimizer }, &set);
    let written = set.iter().map(|(path, entry)| (path.as_str(), entry.value.clone())).collect();
    let settings: Settings = layers::extract(&[defaults, written])?;
    let mut cell = Cell {
        overrides: overrides.into_iter().map(|(path, entry)| (path, entry.value)).collect(),
        settings,
        selected: true,
        origins: set.into_iter().map(|(path, entry)| (path, entry.origin)).collect(),
        file: file.to_owned(),
    };
    check_precision(&cell)?;
    expand_paths(&mut cell, env)?;
    Ok(cell)
}

fn check_precision(cell: &Cell) -> Result<()> {
    use self::settings::BackendKind;
    use crate::precision::Precision;
    let run = &cell.settings.run;
    if run.precision == Precision::Bf16 && run.backend == BackendKind::Scalar {
        let error = Error::input("run.backend = \"scalar\" does not compute in bf16")
            .expected("\"f32\", or run.backend = \"cpu\" or \"tch\"");
        return Err(cell.locate("run.precision", error));
    }
    Ok(())
}

fn expand_paths(cell: &mut Cell, env: &[(String, String)]) -> Result<()> {
    let expand = |path: &str, text: &str| expand::path(text, env).map_err(|error| (path.to_owned(), error));
    let located = |cell: &Cell, (path, error): (String, Error)| cell.locate(&path, error);
    let shards: std::result::Result<Vec<String>, _> =
        cell.settings.data.shards.as_slice().iter().map(|text| expand("data.shards", text)).collect();
    cell.settings.data.shards = OneOrMany::Many(shards.map_err(|failed| located(cell, failed))?);
    if let TokenizerChoice::Path(text) = &cell.settings.data.tokenizer {
        let path = expand("data.tokenizer.path", text).map_err(|failed| located(cell, failed))?;
        cell.settings.data.tokenizer = TokenizerChoice::Path(path);
    }
    let init = match &cell.settings.model.init {
        InitChoice::Torch => None,
        InitChoice::File(text) => Some(expand("model.init.file", text).map(InitChoice::File)),
        InitChoice::Checkpoint(text) => {
            Some(expand("model.init.checkpoint", text).map(InitChoice::Checkpoint))
        }
        InitChoice::Resume(text) => Some(expand("model.init.resume", text).map(InitChoice::Resume)),
    };
    if let Some(text) = &cell.settings.eval.core.bundle {
        let path = expand("eval.core.bundle", text).map_err(|failed| located(cell, failed))?;
        cell.settings.eval.core.bundle = Some(path);
    }
    if let Some(init) = init {
        cell.settings.model.init = init.map_err(|failed| located(cell, failed))?;
    }
    Ok(())
}
