//! Layers, groups, matrix and messages.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// A manifest that settles; tests replace or add lines.
pub(crate) const BASE: &str = r#"name = "t"
[upstream]
commit = "92d63d4"
[run]
seed = 1
backend = "cpu"
[budget]
steps = 10
[schedule]
warmdown = "linear"
[model]
depth = 2
[data]
vocab_size = 300
tokenizer = { vocab_size = 300 }
"#;

fn settle_with(text: &str, profile: Option<&str>, sets: &[&str], env: &[(&str, &str)]) -> Result<Manifest> {
    let options = Options {
        profile: profile.map(str::to_owned),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
        only: Vec::new(),
        env: env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    Manifest::parse(Path::new("t.toml"), text, &options)
}

fn settle_text(text: &str) -> Result<Manifest> {
    settle_with(text, None, &[], &[])
}

fn message(text: &str) -> String {
    settle_text(text).unwrap_err().to_string()
}

#[test]
fn the_recipe_fills_what_is_missing() {
    let manifest = settle_text(BASE).unwrap();
    let settings = &manifest.cells[0].settings;
    assert_eq!(settings.model.qk_scale.value(), Some(1.2));
    assert_eq!(settings.schedule.warmup_steps, Some(40));
    assert_eq!(settings.schedule.warmup_ratio, None);
    assert_eq!(settings.upstream.commit.len(), 40);
    let old = settle_text(&BASE.replace("92d63d4", "348fbb3")).unwrap();
    let settings = &old.cells[0].settings;
    assert_eq!((settings.model.qk_scale.value(), settings.model.softcap.value()), (None, Some(15.0)));
    assert_eq!((settings.schedule.warmup_steps, settings.schedule.warmup_ratio), (None, Some(0.0)));
}

/// Every field of the table settles with each of its defaults and words, for every commit and kind: table and
/// typed settings do not drift apart.
#[test]
fn every_field_settles() {
    for field in fields::all().filter(|field| fields::is_sweepable(field.path)) {
        for (model, optimizer) in [
            ("gpt", "muon_adamw"),
            ("gpt", "adamw"),
            ("gpt", "sgd"),
            ("microgpt", "adamw"),
            ("bigram", "sgd"),
        ] {
            let values: Vec<String> = match field.kind {
                field::Kind::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
                field::Kind::Bool => vec!["true".into(), "false".into()],
                field::Kind::Int(low, _) => vec![low.to_string()],
                field::Kind::IntOr(low, _, word) => vec![low.to_string(), format!("\"{word}\"")],
                field::Kind::Float(low, high) => vec![format!("{}", low.max(high.min(1.0)))],
                field::Kind::FloatOrFalse(..) => vec!["0.5".into(), "false".into()],
                field::Kind::IntsOrFalse => vec!["[1, 2]".into(), "false".into()],
                field::Kind::Betas => vec!["[0.5, 0.25]".into()],
                field::Kind::WindowPattern => vec!["\"sl\"".into()],
                field::Kind::Device => vec!["\"cuda:3\"".into()],
                field::Kind::Texts => vec!["\"a\"".into(), "[\"a\", \"b\"]".into()],
                field::Kind::Text => vec!["\"a\"".into()],
                field::Kind::Commit => vec!["\"2f09686\"".into()],
                field::Kind::Name | field::Kind::Digests | field::Kind::Tables(_) => Vec::new(),
                field::Kind::Plain => vec!["\"gpu,gpu-long\"".into()],
                field::Kind::TimeLimit => vec!["\"1-12:00\"".into()],
                field::Kind::Memory => vec!["\"64G\"".into()],
                field::Kind::Options => vec!["\"--exclusive\"".into(), "[\"--constraint=a\"]".into()],
            };
            for value in values {
                let kind_key = ["model.kind", "optimizer.kind", "run.precision"].contains(&field.path);
                let sets = [
                    format!("model.kind={model}"),
                    format!("optimizer.kind={optimizer}"),
                    format!("{}={value}", field.path),
                    "run.backend=tch".to_owned(),
                ];
                let sets: Vec<&str> =
                    sets.iter().map(String::as_str).filter(|_| !(kind_key && model != "gpt")).collect();
                let text = BASE.replace("[model]\ndepth = 2\n", "");
                let settled = settle_with(&text, None, &sets, &[]);
                let (model, optimizer) = match &settled {
                    Ok(manifest) => {
                        let settings = &manifest.cells[0].settings;
                        (settings.model.kind, settings.optimizer.kind)
                    }
                    Err(error) => {
                        let error = error.to_string();
                        assert!(
                            error.contains(" has no ") || error.starts_with("only model.kind"),
                            "{sets:?}: {error}"
                        );
                        continue;
                    }
                };
                assert!(field.applies.to(model, optimizer), "{} {model:?} {optimizer:?}", field.path);
            }
        }
    }
}

#[test]
fn layers_from_weak_to_strong() {
    let text = format!("{BASE}[profile.p]\nmodel.depth = 3\n");
    let depth = |profile, sets: &[&str], env: &[(&str, &str)]| {
        settle_with(&text, profile, sets, env).unwrap().cells[0].settings.model.depth
    };
    assert_eq!(depth(None, &[], &[]), 2);
    assert_eq!(depth(Some("p"), &[], &[]), 3);
    assert_eq!(depth(Some("p"), &[], &[("NANORUN_MODEL__DEPTH", "4")]), 4);
    assert_eq!(depth(Some("p"), &["model.depth=5"], &[("NANORUN_MODEL__DEPTH", "4")]), 5);
    assert_eq!(depth(Some("p"), &["model.depth=5", "model.depth=6"], &[("NANORUN_THREADS", "4")]), 6);
}

#[test]
fn text_fields_take_numbers_from_flags_as_text() {
    let manifest = settle_with(BASE, None, &["name=123", "data.shards=[\"a\", \"b\"]"], &[]).unwrap();
    assert_eq!(manifest.head.name, "123");
    assert_eq!(manifest.cells[0].settings.data.shards.as_slice(), ["a", "b"]);
}

#[test]
fn a_stronger_key_clears_its_group() {
    let budget = |sets: &[&str]| settle_with(BASE, None, sets, &[]).unwrap().cells[0].settings.budget;
    assert_eq!(budget(&["budget.tokens=2048"]), settings::Budget::Tokens(2048));
    assert_eq!(budget(&["budget={ flops = 1e9 }"]), settings::Budget::Flops(1e9));
    let tokenizer = settle_with(BASE, None, &["data.tokenizer.path=x"], &[]).unwrap();
    let data = &tokenizer.cells[0].settings.data;
    assert_eq!(data.tokenizer, TokenizerChoice::Path("x".to_owned()));
    assert_eq!(data.vocab_size, None);
    let warmup = settle_with(BASE, None, &["schedule.warmup_ratio=0.5"], &[]).unwrap();
    assert_eq!(warmup.cells[0].settings.schedule.warmup_steps, None);
    let axis = format!("{BASE}[matrix]\n\"budget.tokens\" = [2048, 4096]\n");
    let axis = settle_text(&axis).unwrap();
    assert_eq!(axis.cells[1].settings.budget, settings::Budget::Tokens(4096));
}

#[test]
fn required_pins_may_come_from_an_axis() {
    let text = format!("{}[matrix]\n\"run.seed\" = [1, 2]\n", BASE.replace("seed = 1\n", ""));
    assert_eq!(settle_text(&text).unwrap().cells.len(), 2);
}

#[test]
fn a_profile_inherits_no_baseline() {
    let text = format!(
        "{BASE}[scorecard]\nreproducibility = {{ baseline = \"b.toml\" }}\n[profile.p]\nmodel.depth = 3\n"
    );
    let baseline = |profile| {
        let manifest = settle_with(&text, profile, &[], &[]).unwrap();
        (manifest.results_name(), manifest.head.scorecard.reproducibility.baseline)
    };
    assert_eq!(baseline(None), ("t".to_owned(), Some("b.toml".to_owned())));
    assert_eq!(baseline(Some("p")), ("t@p".to_owned(), None));
}

#[test]
fn the_matrix_zips_excludes_and_includes() {
    let text = format!(
        "{BASE}[matrix]\n\"model.depth\" = [2, 4]\n\"run.seed\" = [1, 2]\n[[matrix.zip]]\n\"model.head_dim\" = [32, \
         64]\n\"model.aspect_ratio\" = [16, 32]\n[[matrix.exclude]]\n\"model.depth\" = 4\n\"model.head_dim\" = 32\n\
         [[matrix.include]]\nmodel.smear = false\n"
    );
    let manifest = settle_text(&text).unwrap();
    let show = |manifest: &Manifest| {
        let cells = manifest.selected_cells().map(|cell| {
            let model = &cell.settings.model;
            let run = &cell.settings.run;
            format!("{} {} {} {} {}", model.depth, model.head_dim, model.aspect_ratio, model.smear, run.seed)
        });
        cells.collect::<Vec<_>>()
    };
    insta::assert_snapshot!(show(&manifest).join("\n"), @r"
    2 32 16 true 1
    2 64 32 true 1
    2 32 16 true 2
    2 64 32 true 2
    4 64 32 true 1
    4 64 32 true 2
    2 128 64 false 1
    2 128 64 false 2
    ");
    let selected = settle_with(&text, None, &["model.depth=4"], &[]).unwrap();
    assert_eq!(selected.cells.len(), manifest.cells.len());
    insta::assert_snapshot!(show(&selected).join("\n"), @r"
    4 64 32 true 1
    4 64 32 true 2
    ");
    let collapsed = settle_with(&text, None, &["model.depth=6"], &[]).unwrap();
    insta::assert_snapshot!(show(&collapsed).join("\n"), @r"
    6 32 16 true 1
    6 64 32 true 1
    6 32 16 true 2
    6 64 32 true 2
    6 128 64 false 1
    6 128 64 false 2
    ");
    let one_seed = settle_with(&text, None, &["run.seed=7"], &[]).unwrap();
    assert!(one_seed.cells.iter().all(|cell| cell.settings.run.seed == 7));
    assert_eq!(one_seed.cells.len(), 4);
}

/// What the cells of a matrix over [`BASE`] set, in order.
fn cells(matrix: &str, profile: Option<&str>, sets: &[&str]) -> Vec<String> {
    let manifest = settle_with(&format!("{BASE}{matrix}"), profile, sets, &[]).unwrap();
    let show = |cell: &BTreeMap<String, Value>| {
        let values: Vec<_> = cell.iter().map(|(path, value)| format!("{path}={value}")).collect();
        values.join(" ")
    };
    overrides(&manifest).iter().map(show).collect()
}

#[test]
fn each_exclusion_cuts_by_itself_and_matches_the_base_too() {
    let axes = "[matrix]\n\"model.depth\" = [2, 4, 6]\n";
    let two = "[[matrix.exclude]]\n\"model.depth\" = 2\n[[matrix.exclude]]\n\"model.depth\" = 6\n";
    assert_eq!(cells(&format!("{axes}{two}"), None, &[]), ["model.depth=4"]);
    // The second point leaves the depth to the base, where it is 2.
    let tables = "[matrix]\nmodel = [{ depth = 4 }, { smear = false }]\n\"run.seed\" = [1, 2]\n";
    let base = "[[matrix.exclude]]\n\"model.depth\" = 4\n\"run.seed\" = 1\n";
    let expected =
        ["model.depth=4 run.seed=2", "model.smear=false run.seed=1", "model.smear=false run.seed=2"];
    assert_eq!(cells(&format!("{tables}{base}"), None, &[]), expected);
    let both = "[matrix]\nmodel = [{ depth = 4 }, { smear = false }, { depth = 2 }]\n[[matrix.exclude]]\n\
                \"model.depth\" = 2\n";
    assert_eq!(cells(both, None, &[]), ["model.depth=4"]);
}

#[test]
fn an_include_stands_beside_exclusions_and_may_have_a_seed() {
    let cut = "[matrix]\n\"model.depth\" = [2, 4]\n\"run.seed\" = [1, 2]\n[[matrix.exclude]]\n\"model.depth\" = 4\n";
    let include = |row: &str| cells(&format!("{cut}[[matrix.include]]\n{row}\n"), None, &[])[2..].to_vec();
    assert_eq!(include("model.depth = 4"), ["model.depth=4 run.seed=1", "model.depth=4 run.seed=2"]);
    assert_eq!(include("model.depth = 4\nrun.seed = 7"), ["model.depth=4 run.seed=7"]);
    // Seeds that come more than once on a zipped axis are each crossed with once.
    let zip = "[[matrix.zip]]\n\"run.seed\" = [1, 1, 2]\n\"model.depth\" = [2, 4, 6]\n[[matrix.include]]\n\
               model.smear = false\n";
    let expected = ["model.smear=false run.seed=1", "model.smear=false run.seed=2"];
    assert_eq!(cells(zip, None, &[])[3..], expected);
}

#[test]
fn the_largest_matrix_has_ten_thousand_cells() {
    let seeds = |count: usize| {
        let list: Vec<String> = (1..=count).map(|seed| seed.to_string()).collect();
        format!("{BASE}[matrix]\n\"run.seed\" = [{}]\n", list.join(", "))
    };
    assert_eq!(settle_text(&seeds(10_000)).unwrap().cells.len(), 10_000);
    assert!(message(&seeds(10_001)).contains("more than 10000 cells"));
}

#[test]
fn a_profile_replaces_axes_of_its_keys_and_whole_lists() {
    let weak = "[matrix]\n\"model.depth\" = [2, 4, 6]\n\"run.seed\" = [1]\n[[matrix.exclude]]\n\"model.depth\" = 2\n\
                [[matrix.include]]\nmodel.smear = false\n";
    let with = |profile: &str| cells(&format!("{weak}{profile}"), Some("p"), &[]);
    let axis = with("[profile.p.matrix]\n\"run.seed\" = [8, 9]\n");
    let expected = [
        "model.depth=4 run.seed=8",
        "model.depth=4 run.seed=9",
        "model.depth=6 run.seed=8",
        "model.depth=6 run.seed=9",
        "model.smear=false run.seed=8",
        "model.smear=false run.seed=9",
    ];
    assert_eq!(axis, expected);
    let lists = with(
        "[[profile.p.matrix.exclude]]\n\"model.depth\" = 6\n[[profile.p.matrix.include]]\nmodel.depth = 8\n",
    );
    assert_eq!(lists, ["model.depth=2 run.seed=1", "model.depth=4 run.seed=1", "model.depth=8 run.seed=1"]);
    // A zip takes the place of every axis that it has a key of.
    let zip = with("[[profile.p.matrix.zip]]\n\"model.depth\" = [4, 2]\n\"run.seed\" = [5, 6]\n");
    assert_eq!(zip[0], "model.depth=4 run.seed=5");
}

#[test]
fn what_a_flag_decides_leaves_the_matrix() {
    let seeds = "\"run.seed\" = [1, 2]\n";
    let zip = "[[matrix.zip]]\n\"model.depth\" = [2, 2, 4]\n\"model.head_dim\" = [32, 64, 32]\n";
    let matrix = format!("[matrix]\n{seeds}{zip}");
    let left = cells(&matrix, None, &["model.head_dim=128"]);
    let expected = [
        "model.depth=2 run.seed=1",
        "model.depth=4 run.seed=1",
        "model.depth=2 run.seed=2",
        "model.depth=4 run.seed=2",
    ];
    assert_eq!(left, expected);
    // Of an exclusive group one field is enough.
    assert_eq!(cells("[matrix]\n\"budget.steps\" = [3, 5]\n", None, &["budget.flops=1e12"]), [""]);
}

#[test]
fn a_swept_kind_leaves_fields_of_the_other_kind_in_the_base() {
    let text = format!(
        "{BASE}[optimizer]\nmuon_beta2 = 0.5\n[matrix]\n\"optimizer.kind\" = [\"muon_adamw\", \"sgd\"]\n"
    );
    assert_eq!(settle_text(&text).unwrap().cells.len(), 2);
}

/// Every message in full: file, line, key path, what was expected, the nearest spelling.
#[test]
fn bad_input() {
    let mut all = String::new();
    let mut add = |title: &str, message: String| {
        all.extend(["## ", title, "\n", &message, "\n\n"]);
    };
    let with = |extra: &str| format!("{BASE}{extra}");
    for (title, text) in [
        ("not TOML", "name = \"t\"\n[run\n".to_owned()),
        ("a key twice", "name = \"t\"\nname = \"u\"\n".to_owned()),
        ("an integer too large", BASE.replace("seed = 1", "seed = 99999999999999999999")),
        ("nothing pinned", "name = \"t\"\n".to_owned()),
        ("no commit", BASE.replace("commit = \"92d63d4\"\n", "")),
        ("no seed", BASE.replace("seed = 1\n", "")),
        ("no backend", BASE.replace("backend = \"cpu\"\n", "")),
        ("no budget", BASE.replace("steps = 10\n", "")),
        ("no warmdown", BASE.replace("warmdown = \"linear\"\n", "")),
        ("no name", BASE.replace("name = \"t\"\n", "")),
        ("unknown commit", BASE.replace("92d63d4", "deadbeef")),
        ("short commit", BASE.replace("92d63d4", "92d6")),
        ("unknown key", BASE.replace("depth", "dpth")),
        ("unknown section", with("[modle]\nsmear = false\n")),
        ("key of another section", with("[train]\nwarmdown_ratio = 0.5\n")),
        ("upstream's flag", with("[train]\nmax_seq_len = 64\n")),
        ("nothing like it", with("[zebra]\nstripes = 3\n")),
        ("wrong type", BASE.replace("depth = 2", "depth = \"two\"")),
        ("depth 0", BASE.replace("depth = 2", "depth = 0")),
        ("table for a field", BASE.replace("depth = 2", "depth = { a = 1 }")),
        ("value for a section", format!("model = 3\n{}", BASE.replace("[model]\ndepth = 2\n", ""))),
        ("misspelt word", BASE.replace("\"linear\"", "\"sqroot\"")),
        ("window letters", BASE.replace("depth = 2", "window_pattern = \"SSX\"")),
        ("true for a switch with a value", BASE.replace("depth = 2", "softcap = true")),
        ("negative rate", with("[optimizer]\nmatrix_lr = -1\n")),
        ("betas", with("[optimizer]\nembedding_betas = [0.9]\n")),
        ("not finite", with("[optimizer]\nmatrix_lr = nan\n")),
        ("two budgets", BASE.replace("steps = 10", "steps = 10\ntokens = 10")),
        ("two warm-ups", with("[profile.p.schedule]\nwarmup_steps = 1\nwarmup_ratio = 0.5\n")),
        ("vocabulary below 265", BASE.replace("{ vocab_size = 300 }", "{ vocab_size = 264 }")),
        (
            "bf16 on the scalar backend",
            BASE.replace("\"cpu\"", "\"scalar\"").replace("[budget]", "precision = \"bf16\"\n[budget]"),
        ),
        ("a switch the kind lacks", BASE.replace("depth = 2", "tie_lm_head = true")),
        ("a switch the small kind lacks", BASE.replace("depth = 2", "kind = \"bigram\"\nsmear = false")),
        (
            "muon for a small kind",
            with("[optimizer]\nkind = \"muon_adamw\"\n").replace("depth = 2", "kind = \"bigram\""),
        ),
        ("empty axis", with("[matrix]\n\"run.seed\" = []\n")),
        ("axis that is no list", with("[matrix]\n\"run.seed\" = 3\n")),
        ("axis that names nothing", with("[matrix]\n\"schedule.warmdwn\" = [\"linear\"]\n")),
        ("axis that cannot be swept", with("[matrix]\n\"run.threads\" = [1, 2]\n")),
        ("value of the wrong type on an axis", with("[matrix]\n\"run.seed\" = [\n  1,\n  \"two\",\n]\n")),
        ("a value twice on an axis", with("[matrix]\n\"optimizer.matrix_lr\" = [1, 1.0]\n")),
        (
            "zipped lists of two lengths",
            with("[[matrix.zip]]\n\"run.seed\" = [1, 2]\n\"model.depth\" = [1]\n"),
        ),
        ("a key on two axes", with("[matrix]\n\"run.seed\" = [1]\n[[matrix.zip]]\n\"run.seed\" = [1, 2]\n")),
        (
            "exclude that removes all",
            with("[matrix]\n\"run.seed\" = [1]\n[[matrix.exclude]]\n\"run.seed\" = 1\n"),
        ),
        (
            "exclude of no axis",
            with("[matrix]\n\"run.seed\" = [1]\n[[matrix.exclude]]\n\"model.depth\" = 1\n"),
        ),
        ("exclude of no value", with("[matrix]\n\"run.seed\" = [1]\n[[matrix.exclude]]\n\"run.seed\" = 2\n")),
        (
            "include twice",
            with("[[matrix.include]]\nmodel.smear = false\n[[matrix.include]]\nmodel.smear = false\n"),
        ),
        ("exclude that is no list", with("[matrix]\nexclude = 3\n")),
        ("budgets on two axes", with("[matrix]\n\"budget.steps\" = [1]\n\"budget.tokens\" = [1]\n")),
        (
            "too many cells",
            with(&format!("[matrix]\n\"run.seed\" = [{0}]\n\"model.depth\" = [{0}]\n", {
                (1..=101).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
            })),
        ),
        ("a mistake in a profile not used", with("[profile.p]\nmodel.dept = 3\n")),
        ("a variable that is not set", with("[run2]\n").replace("[run2]\n", "shards = \"$NOWHERE/x\"\n")),
        ("a name that is no file name", BASE.replace("name = \"t\"", "name = \"../t\"")),
        ("control of an unknown field", with("[scorecard.control]\n\"schedule.warmdwn\" = \"linear\"\n")),
    ] {
        add(title, message(&text));
    }
    let given = |profile, sets: &[&str], env: &[(&str, &str)]| {
        settle_with(&with("[profile.smoke]\nmodel.depth = 3\n"), profile, sets, env).unwrap_err().to_string()
    };
    add("--profile misspelt", given(Some("smok"), &[], &[]));
    add("--set misspelt", given(None, &["model.dpth=3"], &[]));
    add("--set without =", given(None, &["model.depth"], &[]));
    add("--set of the wrong type", given(None, &["model.depth=deep"], &[]));
    add("--set two of a group", given(None, &["budget.steps=1", "budget.tokens=1"], &[]));
    add("environment misspelt", given(None, &[], &[("NANORUN_MODEL__DPTH", "3")]));
    insta::assert_snapshot!(all);
}

#[test]
fn the_reference_lists_every_field() {
    let reference = reference_markdown();
    for field in fields::all() {
        assert_eq!(reference.matches(&format!("| `{}` |", field.path)).count(), 1, "{}", field.path);
    }
    insta::assert_snapshot!(reference);
}

/// A matrix of up to three axes, as text, with its axes' lengths.
fn axes() -> impl Strategy<Value = Vec<(&'static str, usize)>> {
    let keys = ["model.depth", "run.seed", "optimizer.ns_steps", "schedule.warmup_steps"];
    proptest::sample::subsequence(keys.to_vec(), 0..=3).prop_shuffle().prop_flat_map(|keys| {
        let lengths = proptest::collection::vec(1_usize..=5, keys.len());
        lengths.prop_map(move |lengths| keys.iter().copied().zip(lengths).collect())
    })
}

fn matrix_text(axes: &[(&str, usize)]) -> String {
    let lines = axes.iter().map(|(key, length)| {
        let values: Vec<String> = (1..=*length).map(|value| value.to_string()).collect();
        format!("\"{key}\" = [{}]\n", values.join(", "))
    });
    format!("{BASE}[matrix]\n{}", lines.collect::<String>())
}

fn overrides(manifest: &Manifest) -> Vec<BTreeMap<String, Value>> {
    manifest.cells.iter().map(|cell| cell.overrides.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_product_has_every_combination_in_order(axes in axes()) {
        let manifest = settle_text(&matrix_text(&axes)).unwrap();
        let count: usize = axes.iter().map(|(_, length)| length).product();
        prop_assert_eq!(manifest.cells.len(), count);
        // The first axis varies slowest: cell numbers in mixed radix.
        for (index, cell) in manifest.cells.iter().enumerate() {
            let mut rest = index;
            for (key, length) in axes.iter().rev() {
                prop_assert_eq!(&cell.overrides[*key], &Value::Integer((rest % length) as i64 + 1));
                rest /= length;
            }
        }
    }

    #[test]
    fn excluding_cuts_exactly_the_matching_cells(axes in axes(), pick in any::<proptest::sample::Index>()) {
        prop_assume!(axes.iter().any(|(_, length)| *length > 1));
        let all = overrides(&settle_text(&matrix_text(&axes)).unwrap());
        let wide: Vec<_> = axes.iter().filter(|(_, length)| *length > 1).collect();
        let (key, length) = wide[pick.index(wide.len())];
        let value = pick.index(*length) as i64 + 1;
        let text = format!("{}[[matrix.exclude]]\n\"{key}\" = {value}\n", matrix_text(&axes));
        let kept = overrides(&settle_text(&text).unwrap());
        let expected: Vec<_> = all.into_iter().filter(|cell| cell[*key] != Value::Integer(value)).collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn including_adds_one_cell_a_seed(axes in axes()) {
        let all = overrides(&settle_text(&matrix_text(&axes)).unwrap());
        let text = format!("{}[[matrix.include]]\n\"model.smear\" = false\n", matrix_text(&axes));
        let more = overrides(&settle_text(&text).unwrap());
        let seeds = axes.iter().find(|(key, _)| *key == SEED).map_or(1, |(_, length)| *length);
        prop_assert_eq!(&more[..all.len()], &all[..]);
        prop_assert_eq!(more.len(), all.len() + seeds);
        for added in &more[all.len()..] {
            prop_assert_eq!(&added["model.smear"], &Value::Boolean(false));
            prop_assert!(added.keys().all(|key| key == "model.smear" || key == SEED));
        }
    }

    #[test]
    fn any_text_settles_or_is_an_error(text in "[a-z.=\\[\\]\"{} 0-9\n]{0,80}", at in 0..BASE.len()) {
        let _ = settle_text(&text);
        let (before, after) = BASE.split_at(at);
        let _ = settle_text(&format!("{before}{text}{after}"));
        let _ = settle_with(BASE, None, &[&text], &[("NANORUN_MODEL__DEPTH", &text)]);
    }
}

#[test]
fn inline_tables_without_end_do_not_overflow_the_stack() {
    let text = format!("[matrix]\n\"schedule.warmdown\" = [\"{}", "ens = 1\n[a]\nb = { c = \"l".repeat(5000));
    let error = super::document::parse("m.toml".as_ref(), &text).unwrap_err();
    assert!(error.to_string().contains("more than 1000 inline tables"), "{error}");
}

/// The row "numbers as people write them": read on a command line and in the environment, where TOML's own forms are
/// not to be expected, and hinted at where a file has to be TOML.
#[test]
fn numbers_as_people_write_them() {
    let settings = |sets: &[&str], env: &[(&str, &str)]| {
        settle_with(BASE, None, sets, env).unwrap_or_else(|error| panic!("{error}")).cells[0].settings.clone()
    };
    let steps = |text: &str| settings(&[&format!("budget.steps={text}")], &[]).budget;
    for text in ["1e3", "1E3", "1000.0", "1000.", "+1000", "1_000"] {
        assert_eq!(steps(text), steps("1000"), "{text}");
    }
    assert_eq!(settings(&["schedule.final_lr_frac=.02"], &[]).schedule.final_lr_frac, 0.02);
    assert_eq!(settings(&[], &[("NANORUN_SCHEDULE__FINAL_LR_FRAC", "2.e-2")]).schedule.final_lr_frac, 0.02);
    assert!(!settings(&["model.smear=False"], &[]).model.smear);
    let betas =
        |text: &str| settings(&[&format!("optimizer.embedding_betas={text}")], &[]).optimizer.embedding_betas;
    assert_eq!(betas("[.9, .95]"), betas("[0.9, 0.95]"));
    // In a file an integer may be written as `1e3` too: TOML has that form, for floats.
    let written = settle_text(&BASE.replace("steps = 10", "steps = 1e1")).unwrap();
    assert_eq!(written.cells[0].settings.budget, settle_text(BASE).unwrap().cells[0].settings.budget);

    let refused = |set: &str| settle_with(BASE, None, &[set], &[]).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            refused("budget.steps=1.5"),
            refused("budget.steps=10k"),
            refused("budget.steps=1,000"),
            refused("budget.steps=inf"),
            refused("schedule.final_lr_frac=0,02"),
            message(&BASE.replace("steps = 10", "steps = .1e2  # ten")),
            message(&BASE.replace("depth = 2", "smear = True")),
            message(&BASE.replace("depth = 2", "depth = 2\ndepth = 2")),
        ]
        .join("\n")
    );
}

/// What selects and what varies, of one matrix: its directory and the cells that are selected.
fn varied(matrix: &str, sets: &[&str], only: &[&str], env: &[(&str, &str)]) -> Result<(String, Vec<String>)> {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let options = Options {
        profile: None,
        sets: owned(sets),
        only: owned(only),
        env: env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    let manifest = Manifest::parse(Path::new("t.toml"), &format!("{BASE}{matrix}"), &options)?;
    let show = |cell: &Cell| {
        let values: Vec<String> =
            cell.overrides.iter().map(|(path, value)| format!("{path}={value}")).collect();
        values.join(" ")
    };
    Ok((manifest.results_name(), manifest.selected_cells().map(show).collect()))
}

#[test]
fn an_axis_set_to_one_of_its_values_selects() {
    let matrix = "[matrix]\n\"model.depth\" = [2, 4]\n\"run.seed\" = [1, 2]\n[[matrix.include]]\nmodel.smear = false\n";
    let with = |sets: &[&str], only: &[&str], env: &[(&str, &str)]| varied(matrix, sets, only, env).unwrap();
    let (own, all) = with(&[], &[], &[]);
    assert_eq!((own.as_str(), all.len()), ("t", 6));
    let seed = with(&[], &["run.seed=2"], &[]);
    assert_eq!(
        seed,
        (
            "t".to_owned(),
            ["model.depth=2 run.seed=2", "model.depth=4 run.seed=2", "model.smear=false run.seed=2"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    assert_eq!(with(&["run.seed=2"], &[], &[]), seed);
    assert_eq!(with(&[], &[], &[("NANORUN_RUN__SEED", "2")]), seed);
    // What a cell has from the base counts as much as what the matrix gives it.
    let depth = with(&[], &["model.depth=2", "run.seed=1"], &[]);
    assert_eq!(depth.1, ["model.depth=2 run.seed=1", "model.smear=false run.seed=1"]);
    assert_eq!(with(&["model.depth=2"], &["run.seed=1"], &[]), depth);
    // Several values of one field are alternatives, several fields are asked for together.
    assert_eq!(with(&[], &["run.seed=1", "run.seed=2"], &[]).1, all);
    assert_eq!(with(&[], &["model.smear=false", "run.seed=1"], &[]).1, ["model.smear=false run.seed=1"]);
    // The recipe's values too.
    assert_eq!(with(&[], &["schedule.warmdown=linear", "optimizer.ns_steps=5"], &[]).1.len(), 6);
    // Of a zipped axis the whole row.
    let zip = "[[matrix.zip]]\n\"model.depth\" = [2, 4]\n\"model.head_dim\" = [32, 64]\n";
    assert_eq!(varied(zip, &["model.depth=4"], &[], &[]).unwrap().1, ["model.depth=4 model.head_dim=64"]);
    // Commits are one however many digits are written.
    let commits = "[matrix]\n\"upstream.commit\" = [\"92d63d4\", \"348fbb3\"]\n";
    let commit = format!("upstream.commit={}", upstream::find("92d63d4").unwrap().commit);
    assert_eq!(varied(commits, &[&commit], &[], &[]).unwrap().1.len(), 1);
    assert_eq!(varied(commits, &[], &[&commit], &[]).unwrap().1.len(), 1);

    let refused = |sets: &[&str], only: &[&str]| varied(matrix, sets, only, &[]).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            refused(&[], &["run.seed=7"]),
            refused(&["model.depth=4"], &["model.depth=2"]),
            refused(&[], &["model.dpth=4"]),
            refused(&[], &["model.depth=deep"]),
            refused(&[], &["model.depth"]),
            refused(&[], &["run.threads=2"]),
            refused(&[], &["optimizer.lr=2"]),
        ]
        .join("\n")
    );
}

#[test]
fn what_enters_a_key_or_a_verdict_goes_to_a_directory_of_its_own() {
    let matrix = "[matrix]\n\"model.depth\" = [2, 4]\n\"run.seed\" = [1, 2]\n";
    let with = |sets: &[&str], env: &[(&str, &str)]| varied(matrix, sets, &[], env).unwrap().0;
    let of = |sets: &[&str]| with(sets, &[]);
    // The digits are what results are found by: they stay what they are.
    let steps = of(&["budget.steps=5"]);
    assert_eq!(steps, "t~2b3b2c0e");
    // In any order, by any means, however it is spelled.
    assert_eq!(with(&[], &[("NANORUN_BUDGET__STEPS", "5")]), steps);
    assert_eq!(with(&["budget.steps=5"], &[("NANORUN_BUDGET__TOKENS", "64")]), steps);
    assert_eq!(of(&["budget={ steps = 5.0 }"]), steps);
    let two = of(&["budget.steps=5", "eval.tokens=512"]);
    assert_eq!(of(&["eval.tokens=512", "budget.steps=7", "budget.steps=5"]), two);
    assert_eq!(with(&["eval.tokens=512"], &[("NANORUN_BUDGET__STEPS", "5")]), two);
    assert_ne!(two, steps);
    // What selects beside it does not vary.
    assert_eq!(of(&["budget.steps=5", "run.seed=2"]), steps);
    // The manifest's own value, and the recipe's.
    for own in
        ["budget.steps=10", "optimizer.ns_steps=5", "scorecard.quality.margin=0.002", "model.init=torch"]
    {
        assert_eq!(of(&[own]), "t", "{own}");
    }
    // Beyond an axis, and in place of one.
    assert_ne!(of(&["run.seed=7"]), "t");
    assert_ne!(of(&["run.seed=7"]), of(&["run.seed=8"]));
    let budgets = "[matrix]\n\"budget.steps\" = [3, 5]\n";
    assert_ne!(varied(budgets, &["budget.flops=1e12"], &[], &[]).unwrap().0, "t");
    // A base that the matrix hides is none of the cells': it takes them away.
    assert_ne!(varied("[matrix]\n\"run.seed\" = [2, 3]\n", &["run.seed=1"], &[], &[]).unwrap().0, "t");
    for verdict in
        ["scorecard.quality.margin=0.1", "scorecard.speed.min_ratio=0.5", "scorecard.across=[\"a\"]"]
    {
        assert_ne!(of(&[verdict]), "t", "{verdict}");
    }
    for other in [
        "name=t",
        "question=Why?",
        "run.threads=2",
        "run.device=cpu",
        "run.preflight=false",
        "checkpoint.every=2",
        "checkpoint.final=all",
        "checkpoint.minutes=0",
        "eval.every=2",
        "eval.max_drift_bytes=1",
        "scorecard.reproducibility.baseline=b.toml",
    ] {
        assert_eq!(of(&[other]), "t", "{other}");
    }
    // Which GPU it is, is no matter; that it is one is.
    let device = |set: &str| of(&["run.backend=tch", set]);
    assert_eq!(
        (device("run.device=cpu"), device("run.device=cuda:0")),
        (of(&["run.backend=tch"]), device("run.device=cuda:1"))
    );
    assert_ne!(device("run.device=cpu"), device("run.device=cuda:1"));
    assert_eq!(of(&["run.device=cuda:0"]), "t");
    // Texts at another place are the same texts, as far as names tell; those that come with nanorun are others.
    let files = "shards = \"a/*.parquet\"\n";
    let data = |sets: &[&str]| varied(files, sets, &[], &[]).unwrap().0;
    assert_eq!(data(&["data.shards=b"]), "t");
    assert_ne!(data(&["data.shards=embedded"]), "t");
    assert_ne!(of(&["data.shards=b"]), "t");
    assert_eq!(of(&["data.shards=b"]), of(&["data.shards=c"]));
    // A tokenizer from a file in place of one that is trained, wherever the file is.
    assert_ne!(of(&["data.tokenizer.path=x"]), "t");
    assert_eq!(of(&["data.tokenizer.path=x"]), of(&["data.tokenizer.path=y"]));
    // Under a profile too.
    let text = format!("{BASE}[profile.p]\nmodel.depth = 3\n");
    let under = |sets: &[&str]| settle_with(&text, Some("p"), sets, &[]).unwrap().results_name();
    assert_eq!(under(&["model.depth=3"]), "t@p");
    assert!(under(&["model.depth=2"]).starts_with("t@p~"), "{}", under(&["model.depth=2"]));
}
