use std::collections::BTreeMap;

use super::*;
use crate::hash::Digest;
use crate::record::RunRow;
use crate::scorecard::{Criteria, Quality, RunSummary, Scorecard, judge};

/// Markup, ends of what could hold it, quotes, and characters that act instead of being shown.
const EVIL: &str = "</script></style></title><img src=x onerror=\"evil()\" '>&lt;<!--\u{202e}\u{2066}\u{0}\u{1b}[31m\u{2028}]]>";

fn row(arm: &str, seed: u64, steps: u64) -> RunRow {
    let digest = |what: &str| Digest::of(format!("{what}{arm}{seed}").as_bytes()).to_string();
    RunRow {
        experiment: "shapes".to_owned(),
        arm: arm.to_owned(),
        seed,
        run_key: digest("key"),
        status: "finished".to_owned(),
        reason: None,
        commit: "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd".to_owned(),
        backend: "cpu".to_owned(),
        device: "cpu".to_owned(),
        precision: "f32".to_owned(),
        environment_class: "cpu".to_owned(),
        numerics_version: 3,
        parameters: 3_145_728,
        steps,
        steps_done: steps,
        tokens: steps * 2048,
        flops_per_token: 1.9e7,
        train_epochs: Some(0.5),
        eval_epochs: Some(0.1),
        final_loss: Some(5.5),
        val_bpb: Some(2.5),
        best_val_bpb: Some(2.5),
        train_hash: Some(digest("train")),
        eval_hash: Some(digest("eval")),
        result_hash: Some(digest("result")),
        shared_steps: 0,
        resumes: 0,
        alone: true,
        threads: 2,
        train_seconds: 60.0,
        eval_seconds: 2.0,
        checkpoint_seconds: 0.5,
        tokens_per_second: Some(5000.0),
        mfu: None,
        peak_rss_bytes: None,
        peak_device_bytes: None,
        host: "here".to_owned(),
        cpu_model: "a CPU".to_owned(),
        accelerator: None,
        started: "2026-01-02T03:04:05Z".to_owned(),
        finished: "2026-01-02T03:05:05Z".to_owned(),
    }
}

/// A run whose loss falls and scatters, differently for every arm and seed.
fn run(arm: &str, place: u64, seed: u64, steps: u64) -> Run {
    let noise = |step: u64| {
        let bits = (step * 2_654_435_761)
            .wrapping_add(seed * 40_503 + place * 97)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (bits >> 40) as f64 / (1_u64 << 24) as f64 - 0.5
    };
    let loss = |step: u64| 3.0 + 8.0 / (1.0 + step as f64 / 50.0) + 0.05 * place as f64 + 0.3 * noise(step);
    let bpb = |step: u64| (loss(step) - 0.3 * noise(step)) / 2.7 + 0.002 * noise(seed + 7 * place);
    let evaluations: Vec<Evaluated> = (0..=steps)
        .step_by((steps as usize / 4).max(1))
        .map(|step| Evaluated { step, values: [("val_bpb".to_owned(), bpb(step))].into() })
        .collect();
    let mut row = row(arm, seed, steps);
    row.val_bpb = evaluations.last().and_then(|last| last.values.get("val_bpb").copied());
    row.final_loss = Some(loss(steps - 1) as f32);
    let definition: Definition =
        vec![("eval.tokens", "32768".to_owned()), ("data.shards", "embedded".to_owned())];
    Run {
        row,
        losses: (0..steps).map(|step| loss(step) as f32).collect(),
        seconds: (0..steps).map(|step| 0.4 + 0.01 * noise(step) as f32).collect(),
        evaluations,
        batch: 2048,
        schedule: if seed == 1 {
            (0..steps).map(|step| [1.0 - step as f64 / steps as f64, 0.95, 0.2]).collect()
        } else {
            Vec::new()
        },
        samples: Some("--- prompt \"The \"\nThe king is dead.\n".repeat(6)),
        data: RunData {
            shards: "embedded".to_owned(),
            tokenizer: "trained on the training text, 4096 tokens".to_owned(),
            content: Some(Digest::of(b"content").to_string()),
            size: None,
            eval_tokens: 32_768,
            measured: [("val_bpb".to_owned(), definition.clone()), ("train_loss".to_owned(), definition)]
                .into(),
        },
    }
}

fn scorecard(runs: &[Run], question: &str) -> Scorecard {
    let summary = |run: &Run| RunSummary {
        arm: run.row.arm.clone(),
        seed: run.row.seed,
        metrics: run.row.val_bpb.map(|value| ("val_bpb".to_owned(), value)).into_iter().collect(),
        ended: run.row.result_hash.is_some(),
        tokens_per_second: run.row.tokens_per_second,
        alone: true,
        shared_steps: 0,
        machines: vec!["a CPU, 2 threads".to_owned()],
        backend: "cpu in f32".to_owned(),
        environment_class: "cpu".to_owned(),
        result_hash: run.row.result_hash.as_ref().map(|hash| hash.parse().unwrap()),
        ..RunSummary::default()
    };
    let first = runs[0].row.arm.clone();
    let controls: BTreeMap<String, String> = runs
        .iter()
        .filter(|run| run.row.arm != first)
        .map(|run| (run.row.arm.clone(), first.clone()))
        .collect();
    let criteria = Criteria {
        controls,
        quality: Some(Quality::by("val_bpb", 0.02)),
        speed: None,
        targets: Vec::new(),
        baseline: None,
    };
    judge("shapes", Some(question), &criteria, runs.iter().map(summary).collect())
}

fn subject(arms: &[&str], seeds: u64, steps: u64) -> Subject {
    let runs: Vec<Run> = arms
        .iter()
        .enumerate()
        .flat_map(|(place, arm)| (1..=seeds).map(move |seed| run(arm, place as u64, seed, steps)))
        .collect();
    Subject {
        name: "shapes".to_owned(),
        scorecard: scorecard(&runs, "Which shape is best?"),
        metric: "val_bpb".to_owned(),
        runs,
        varied: Vec::new(),
        selection: None,
        command: "nanorun run experiments/shapes.toml".to_owned(),
        manifest: "name = \"shapes\"\n".to_owned(),
        nanorun: "0.1.0".to_owned(),
    }
}

/// What is in the page's block of data.
fn data_of(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"curves-data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn markup_from_elsewhere_is_text_wherever_it_stands() {
    let mut subject = subject(&["plain", EVIL], 2, 40);
    subject.scorecard = scorecard(&subject.runs, EVIL);
    for text in [&mut subject.name, &mut subject.command, &mut subject.manifest, &mut subject.nanorun] {
        EVIL.clone_into(text);
    }
    subject.varied = vec![EVIL.to_owned()];
    subject.selection = Some(EVIL.to_owned());
    for run in &mut subject.runs {
        let (row, data) = (&mut run.row, &mut run.data);
        for text in [
            &mut row.experiment,
            &mut row.backend,
            &mut row.device,
            &mut row.precision,
            &mut row.commit,
            &mut row.environment_class,
            &mut row.host,
            &mut row.cpu_model,
            &mut row.started,
            &mut row.finished,
            &mut row.run_key,
            &mut data.shards,
            &mut data.tokenizer,
        ] {
            EVIL.clone_into(text);
        }
        row.reason = Some(EVIL.to_owned());
        data.content = Some(EVIL.to_owned());
        run.samples = Some(EVIL.to_owned());
        row.accelerator = Some(EVIL.to_owned());
    }
    let mut failed = subject.runs[0].clone();
    (failed.row.status, failed.row.result_hash) = (EVIL.to_owned(), None);
    subject.runs.push(failed);
    for subjects in [vec![subject.clone()], vec![subject.clone(), subject]] {
        let text = page(&subjects);
        assert!(text.contains("&lt;img src=x onerror=&quot;evil()&quot; &#39;&gt;&amp;lt;&lt;!--"));
        for tag in ["<img", "<!--", "</title><img", "evil()\"", "\u{202e}", "\u{2066}", "\u{0}", "\u{1b}"] {
            assert!(!text.contains(tag), "{tag:?}");
        }
        // The page's own, and no other.
        for (tag, count) in
            [("</script>", 2), ("</style>", 1), ("</title>\n", 1), ("</head>", 1), ("</body>", 1)]
        {
            assert_eq!(text.matches(tag).count(), count, "{tag}");
        }
        assert!(data_of(&text)["arms"][1]["name"].as_str().unwrap().contains("</script>"));
        for (name, svg) in figures(&subjects) {
            assert!(!svg.contains("<img") && !svg.contains('\u{202e}') && !svg.contains('\u{0}'), "{name}");
        }
    }
}

#[test]
fn a_page_of_twelve_long_runs_is_small_and_keeps_extremes() {
    let subject = subject(&["linear", "sqrt", "cosine", "constant"], 3, 5000);
    let text = page(std::slice::from_ref(&subject));
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    let data = data_of(&text);
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let loss = &data["charts"][0];
    assert_eq!(loss["id"], "loss");
    for (place, line) in loss["runs"].as_array().unwrap().iter().enumerate() {
        let shown = numbers(&line["y"]);
        assert!((500..=2000).contains(&shown.len()), "{}", shown.len());
        let all = subject.runs[place].losses.iter().map(|loss| f64::from(*loss));
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (low, high) = ends(&mut shown.into_iter());
        let (lowest, highest) = ends(&mut all.into_iter());
        assert!((low - lowest).abs() < 1e-4 && (high - highest).abs() < 1e-3);
    }
    // As many experiments as anybody compares do not make it grow without bound.
    let many: Vec<Subject> = (0..6).map(|_| subject.clone()).collect();
    assert!(page(&many).len() < 2_500_000);
}

#[test]
fn the_same_results_give_the_same_page() {
    let subject = || subject(&["linear", "sqrt"], 2, 100);
    assert_eq!(page(&[subject()]), page(&[subject()]));
}

/// A browser runs the page's script only if it has the hash that the policy names.
#[test]
fn the_policy_allows_the_pages_own_style_and_script_alone() {
    use base64::Engine as _;
    let text = page(&[subject(&["linear"], 1, 10)]);
    for (before, after) in [("<style>", "</style>"), ("<script>", "</script>")] {
        let (_, rest) = text.split_once(before).unwrap();
        let (inside, _) = rest.split_once(after).unwrap();
        let hash = base64::engine::general_purpose::STANDARD.encode(Digest::of(inside.as_bytes()).as_bytes());
        assert!(text.contains(&format!("&#39;sha256-{hash}&#39;")));
    }
    assert!(text.contains("default-src &#39;none&#39;; style-src"));
    assert_eq!(text.matches(" src=\"").count() + text.matches("@import").count(), 0);
}

/// Whatever an experiment has come to, there is a page about it.
#[test]
fn pages_of_what_is_not_finished() {
    let mut nothing = subject(&["linear", "sqrt"], 2, 20);
    for run in &mut nothing.runs {
        run.row.status = "planned".to_owned();
        (run.row.result_hash, run.row.val_bpb, run.row.final_loss) = (None, None, None);
        run.row.tokens_per_second = None;
        run.row.steps_done = 0;
        (run.losses, run.seconds, run.evaluations) = (Vec::new(), Vec::new(), Vec::new());
        (run.schedule, run.samples) = (Vec::new(), None);
    }
    nothing.scorecard = scorecard(&nothing.runs, "What?");
    let text = page(std::slice::from_ref(&nothing));
    assert!(text.contains("Interim, 0 of 4 runs are finished: "), "{text}");
    assert!(text.contains("No run has ended yet."));
    assert_eq!(data_of(&text)["charts"].as_array().unwrap().len(), 0);

    let mut diverged = subject(&["linear", "sqrt"], 2, 20);
    diverged.runs[3].row.status = "diverged".to_owned();
    diverged.runs[3].row.reason = Some("the loss of step 7 is NaN".to_owned());
    diverged.runs[3].row.result_hash = None;
    diverged.runs[3].losses.truncate(8);
    diverged.runs[3].losses[7] = f32::NAN;
    diverged.scorecard = scorecard(&diverged.runs, "What?");
    let text = page(&[diverged]);
    assert!(text.contains("Interim, 3 of 4 runs are finished: "));
    assert!(text.contains("diverged: the loss of step 7 is NaN"));
    let data = data_of(&text);
    // Means are over what is finished; the run that is not is drawn for itself, with a gap.
    assert_eq!(data["charts"][0]["lines"][1]["y"].as_array().unwrap().len(), 20);
    assert!(data["charts"][0]["runs"][3]["y"][7].is_null());

    let alone = page(&[subject(&[""], 1, 5)]);
    assert!(alone.contains("(all)") && alone.contains("There is one seed"));
}

/// What is measured differently is not drawn on one axis.
#[test]
fn two_definitions_are_two_charts() {
    let mut subject = subject(&["short", "long"], 1, 20);
    for definition in subject.runs[1].data.measured.values_mut() {
        definition[0].1 = "65536".to_owned();
    }
    let text = page(&[subject]);
    let data = data_of(&text);
    let ids: Vec<&str> =
        data["charts"].as_array().unwrap().iter().map(|chart| chart["id"].as_str().unwrap()).collect();
    assert_eq!(ids[..4], ["loss", "loss-2", "eval", "eval-2"]);
    assert!(text.contains("not drawn together; here: eval.tokens 65536."));
}

#[test]
fn figures_look_like_this() {
    let figures: BTreeMap<String, String> =
        figures(&[subject(&["linear", "sqrt"], 3, 12)]).into_iter().collect();
    let names: Vec<&str> = figures.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["decay.svg", "differences.svg", "eval.svg", "loss.svg", "lr.svg", "momentum.svg", "throughput.svg"]
    );
    // One element a line, without the style that all have.
    let lines = |name: &str| {
        let (before, rest) = figures[name].split_once("<style>").unwrap();
        let (_, after) = rest.split_once("</style>").unwrap();
        format!("{before}{after}").replace("><", ">\n<")
    };
    insta::assert_snapshot!("differences", lines("differences.svg"));
    insta::assert_snapshot!("evaluations", lines("eval.svg"));
}

/// What others wrote is what its README says it is.
#[test]
fn vendored_files_are_the_published_ones() {
    let readme = include_str!("vendor/README.md");
    for (name, bytes) in [
        ("uPlot.iife.min.js", include_str!("vendor/uPlot.iife.min.js")),
        ("uPlot.min.css", include_str!("vendor/uPlot.min.css")),
        ("uPlot.LICENSE", include_str!("vendor/uPlot.LICENSE")),
    ] {
        let line = readme.lines().find(|line| line.contains(&format!("`{name}`"))).unwrap();
        assert!(line.contains(&Digest::of(bytes.as_bytes()).to_string()), "{name}");
    }
    assert!(page(&[subject(&["linear"], 1, 5)]).contains("Copyright (c) 2022 Leon Sorokin"));
}
