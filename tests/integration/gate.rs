//! `verify` and `diff` as a team's CI uses them.

use super::support::{Ended, Place, TINY};

/// A small experiment with a baseline: two arms, one seed, eight steps.
fn blessed() -> Place {
    let place = Place::with(&TINY.replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]"));
    let ended = place.run(&["verify", "m.toml", "--baseline", "b.toml", "--bless"]).expect(0);
    assert!(
        ended.stdout.contains("blessed 2 runs in b.toml\nthere was no baseline before"),
        "{}",
        ended.stdout
    );
    place
}

fn verify(place: &Place, more: &[&str]) -> Ended {
    place.run(&[&["verify", "m.toml", "--baseline", "b.toml", "--quiet"][..], more].concat())
}

#[test]
fn what_is_equal_passes_and_ci_gets_its_files() {
    let place = blessed();
    let more = ["--read", "--junit", "ci/gate.xml", "--markdown", "ci/gate.md"];
    let ended = verify(&place, &more).expect(0);
    assert!(ended.stdout.starts_with("tiny: 2 of 2 runs as in b.toml"), "{}", ended.stdout);
    let junit = std::fs::read_to_string(place.path("ci/gate.xml")).unwrap();
    assert!(
        junit.contains("<testcase classname=\"nanorun.tiny\" name=\"warmdown=linear, seed 1\"/>"),
        "{junit}"
    );
    let markdown = std::fs::read_to_string(place.path("ci/gate.md")).unwrap();
    assert!(markdown.starts_with("### tiny: reproduced"), "{markdown}");
}

#[test]
fn what_differs_is_named_and_exits_4() {
    let place = blessed();
    let changed = ["--results", "other", "--set", "schedule.final_lr_frac=0.050001"];
    let ended = verify(&place, &changed).expect(4);
    assert!(ended.stdout.contains("first at step "), "{}", ended.stdout);
    assert!(ended.stdout.contains("lr_multiplier"), "{}", ended.stdout);
    // Varied, it has a directory of its own.
    let other = place.directory(&changed);
    assert!(other.starts_with("other/tiny~"), "{other}");
    let ended = place.run(&["diff", "results/tiny", &other]).expect(4);
    assert!(ended.stdout.contains("first at step "), "{}", ended.stdout);
    place.run(&["diff", "results/tiny", "results/tiny"]).expect(0);

    // Blessing tells what it changes.
    let ended = verify(&place, &[&changed[..], &["--bless"]].concat()).expect(0);
    assert!(
        ended.stdout.contains("against the one before, tiny: 0 of 2 runs as in b.toml"),
        "{}",
        ended.stdout
    );
    verify(&place, &changed).expect(0);
}

#[test]
fn runs_that_one_side_lacks_are_told() {
    let place = blessed();
    let text = std::fs::read_to_string(place.path("m.toml")).unwrap();
    std::fs::write(place.path("m.toml"), text.replace("[\"linear\", \"sqrt\"]", "[\"linear\", \"cosine\"]"))
        .unwrap();
    let ended = verify(&place, &[]).expect(4);
    for word in ["NEW      warmdown=cosine", "MISSING  warmdown=sqrt", "1 of 3 runs"] {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
    // Another number of steps, of an experiment of another name.
    let shorter = text.replace("steps = 8", "steps = 6").replace("name = \"tiny\"", "name = \"short\"");
    std::fs::write(place.path("m.toml"), shorter).unwrap();
    let ended = verify(&place, &[]).expect(4);
    assert!(ended.stdout.contains("6 steps, expected 8"), "{}", ended.stdout);
    assert!(ended.stdout.contains("note: the baseline was made of experiment `tiny`"), "{}", ended.stdout);
}

#[test]
fn a_baseline_that_cannot_be_used_is_told_before_anything_runs() {
    let place = Place::with(TINY);
    let ended = verify(&place, &[]).expect(2);
    assert!(ended.stderr.contains("there is no such baseline"), "{}", ended.stderr);
    std::fs::write(place.path("b.toml"), "format = 1\nexperiment = 3\n").unwrap();
    for more in [&[][..], &["--bless"]] {
        let ended = verify(&place, more).expect(2);
        assert!(ended.stderr.contains("the baseline `b.toml` cannot be read"), "{}", ended.stderr);
    }
    assert!(!place.path("results").exists());
    let ended = place.run(&["diff", "results/a", "results/b"]).expect(2);
    assert!(ended.stderr.contains("no results directory"), "{}", ended.stderr);
}

/// Commits that count the bytes of a token differently, on models that train to one loss.
#[test]
fn two_definitions_of_the_metric() {
    let arms = TINY
        .replace(
            "\"schedule.warmdown\" = [\"linear\", \"sqrt\"]",
            "\"data.token_bytes\" = [\"decoded\", \"raw\"]",
        )
        .replace(
            "control = { \"schedule.warmdown\" = \"linear\" }",
            "control = { \"data.token_bytes\" = \"decoded\", \"model.softcap\" = 15.0 }",
        );
    // Cells that train alike must be evaluated alike: make them train differently as well.
    let arms = arms.replace(
        "\"data.token_bytes\" = [\"decoded\", \"raw\"]",
        "zip = [{ \"data.token_bytes\" = [\"decoded\", \"raw\"], \"model.softcap\" = [15.0, 15.5] }]",
    );
    let place = Place::with(&arms);
    let told = "data.token_bytes raw against decoded";
    let plan = place.run(&["plan", "m.toml"]).expect(0).stdout;
    assert!(plan.contains("will not be judged") && plan.contains(told), "{plan}");
    // Whatever the clock says of the speed: only quality is looked at.
    let card = place.run(&["run", "m.toml"]).stdout;
    let quality = card.lines().find(|line| line.starts_with("quality")).unwrap();
    assert!(quality.starts_with("quality  not judged") && quality.contains(told), "{card}");
    // Who means to compare across it says so.
    std::fs::write(
        place.path("m.toml"),
        arms.replace("[scorecard]", "[scorecard]\nacross = [\"data.token_bytes\"]"),
    )
    .unwrap();
    let card = place.run(&["report", "m.toml"]);
    let quality = card.stdout.lines().find(|line| line.starts_with("quality")).unwrap();
    assert!(
        !quality.contains("not judged") && quality.contains("across data.token_bytes"),
        "{}",
        card.stdout
    );
    std::fs::write(
        place.path("m.toml"),
        arms.replace("[scorecard]", "[scorecard]\nacross = [\"model.depth\"]"),
    )
    .unwrap();
    let wrong = place.run(&["plan", "m.toml"]).expect(2);
    assert!(wrong.stderr.contains("no evaluation differs by `model.depth`"), "{}", wrong.stderr);
}

/// The row "mixed environments": runs of two classes in one pair are not compared, and text and JSON say so.
#[test]
fn mixed_environments() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let quality = |arguments: &[&str]| {
        let report = place.run(&[&["report", "m.toml", "--json"], arguments].concat()).expect(0).json();
        let verdicts = report["verdicts"].as_array().unwrap().clone();
        verdicts.into_iter().find(|verdict| verdict["verdict"] == "quality").unwrap()
    };
    assert_eq!(quality(&[])["outcome"], "pass");
    let files = nanorun::internals::files::Files::new();
    for (at, seed) in ["1", "2"].into_iter().enumerate() {
        let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
        let key = plan["runs"][2 + at]["key"]["run"].as_str().unwrap()[..12].to_owned();
        let path = place.path(&format!("results/tiny/runs/{key}/attempt/1/result.json"));
        let result = nanorun::internals::record::RunResult::read(&files, &path).unwrap().unwrap();
        nanorun::internals::record::RunResult { environment_class: "cpu/elsewhere".to_owned(), ..result }
            .write(&files, &path)
            .unwrap();
        let verdict = quality(&[]);
        let detail = verdict["detail"].as_str().unwrap();
        assert!(detail.contains("two environment classes, cpu/elsewhere and "), "{detail}");
        if seed == "1" {
            assert_eq!(verdict["outcome"], "undecided");
            assert!(detail.contains("seed 1 left out"), "{detail}");
        } else {
            assert_eq!((&verdict["outcome"], &verdict["difference"]), (&"not judged".into(), &().into()));
        }
    }
    let shown = place.run(&["report", "m.toml"]).expect(0).stdout;
    assert!(shown.contains("into other results (--results DIR)"), "{shown}");
}

/// One run under two settings of its evaluation: no defect, and no value is held against the other.
#[test]
fn evaluations_of_two_definitions_are_no_defect() {
    let place = Place::with(&TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let otherwise = ["--set", "eval.tokens=1024"];
    place.run(&[&["run", "m.toml", "-q"], &otherwise[..]].concat()).expect(0);
    let diff = place.run(&["diff", "results/tiny", &place.directory(&otherwise)]).expect(4).stdout;
    assert!(diff.contains("evaluated by another definition") && !diff.contains("defect"), "{diff}");
}
