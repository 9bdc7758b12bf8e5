//! Targets and further metrics, as a manifest asks for them.

use nanorun::internals::files::Files;
use nanorun::internals::record::{ScorecardRow, read_table};

use crate::support::{Place, TINY};

fn rows(place: &Place) -> Vec<ScorecardRow> {
    read_table(&Files::new(), &place.path("results/tiny/scorecard.parquet")).unwrap()
}

#[test]
fn arms_are_held_against_numbers() {
    let manifest = TINY.replace(
        "[matrix]",
        "[[scorecard.target]]\nat_most = 100.0\n\n[[scorecard.target]]\nmetric = \"val_loss\"\nat_most = 0.1\nsigma = 0.01\n\n\
         [[scorecard.target]]\nrule = \"modded_nanogpt_track_1\"\nat_most = 99.0\n\n[matrix]",
    );
    let place = Place::with(&manifest);
    let planned = place.run(&["plan", "m.toml"]).expect(0).stdout;
    for said in [
        "target: mean val_bpb at most 100, one-sided p < 0.01, t test over the runs of each arm",
        "target: mean val_loss at most 0.1, one-sided p < 0.01, z test with an assumed standard deviation of 0.01",
        "target: mean val_loss at most 99, one-sided p < 0.01, t test over the runs of each arm (modded-nanogpt's track 1)",
    ] {
        assert!(planned.contains(said), "{planned}");
    }
    // One of them is missed by far.
    let ended = place.run(&["run", "m.toml"]).expect(5);
    assert!(ended.stdout.contains("misses val_loss at most 0.1"), "{}", ended.stdout);
    assert!(ended.stdout.contains("meets val_bpb at most 100"), "{}", ended.stdout);
    let targets: Vec<_> = rows(&place).into_iter().filter(|row| row.verdict == "target").collect();
    let brief: Vec<_> =
        targets.iter().map(|row| (row.arm.as_str(), row.metric.as_str(), row.outcome.as_str())).collect();
    assert_eq!(
        brief,
        [
            ("warmdown=linear", "val_bpb", "pass"),
            ("warmdown=sqrt", "val_bpb", "pass"),
            ("warmdown=linear", "val_loss", "fail"),
            ("warmdown=sqrt", "val_loss", "fail"),
            ("warmdown=linear", "val_loss", "pass"),
            ("warmdown=sqrt", "val_loss", "pass"),
        ]
    );
    assert!(targets.iter().all(|row| row.p.is_some() && row.worth_steps.is_some()), "{targets:?}");
    let page = std::fs::read_to_string(place.path("results/tiny/report.html")).unwrap();
    assert!(page.contains("misses val_loss at most 0.1") && page.contains("target, val_bpb"));
    // Without a control, the targets are the answer.
    let alone = manifest.replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "");
    std::fs::write(place.path("m.toml"), alone).unwrap();
    let report = place.run(&["report", "m.toml"]).expect(5).stdout;
    assert!(report.starts_with("tiny: warmdown=linear meets val_bpb at most 100: "), "{report}");
}

#[test]
fn several_metrics_share_what_may_go_wrong() {
    let place = Place::with(&TINY.replace(
        "confidence = 0.9 }",
        "confidence = 0.9, also = [{ metric = \"val_loss\", margin = 0.1 }, { metric = \"train_loss\", margin = 0.1 }] }",
    ));
    let code = place.run(&["run", "m.toml", "-q"]).code;
    assert!(code == Some(0) || code == Some(5));
    let quality: Vec<_> = rows(&place).into_iter().filter(|row| row.verdict == "quality").collect();
    let metrics: Vec<_> = quality.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(metrics, ["val_bpb", "val_loss", "train_loss"]);
    for row in &quality {
        let (lower, upper) = (row.lower.unwrap(), row.upper.unwrap());
        let (raw_lower, raw_upper) = (row.raw_lower.unwrap(), row.raw_upper.unwrap());
        assert!(lower < raw_lower && raw_upper < upper, "{row:?}");
        assert!(row.p.unwrap() <= row.p_adjusted.unwrap(), "{row:?}");
        assert_eq!((row.tokens_ratio, row.flops_ratio), (Some(1.0), Some(1.0)));
        assert_eq!(row.per_token, row.difference);
    }
}

#[test]
fn what_undecided_is_to_a_gate() {
    let undecided = TINY.replace("margin = 0.5", "margin = 0.0").replace("[1, 2]", "[1]");
    let place = Place::with(&undecided);
    for command in ["run", "report"] {
        place.run(&[command, "m.toml", "-q"]).expect(0);
        place.run(&[command, "m.toml", "-q", "--undecided", "pass"]).expect(0);
        place.run(&[command, "m.toml", "-q", "--undecided", "fail"]).expect(5);
    }
    place.run(&["verify", "m.toml", "--baseline", "b.toml", "--bless", "--read"]).expect(0);
    let verify = ["verify", "m.toml", "--baseline", "b.toml", "--read"];
    place.run(&verify).expect(0);
    place.run(&[&verify[..], &["--undecided", "fail"]].concat()).expect(5);
    place.run(&[&verify[..], &["--undecided", "perhaps"]].concat()).expect(2);
}

#[test]
fn targets_and_metrics_that_cannot_be_are_refused() {
    let mut all = String::new();
    for target in [
        "[[scorecard.target]]\nmetric = \"val_loss\"",
        "[scorecard.target]\nat_most = 1.0\nat_least = 2.0",
        "[[scorecard.target]]\nat_most = 1.0\n[[scorecard.target]]\nat_mots = 2.0",
        "[[scorecard.target]]\nmetric = \"valloss\"\nat_most = 1.0",
        "[[scorecard.target]]\nmetric = \"core\"\nat_least = 0.2",
        "[[scorecard.target]]\nat_most = \"3.28\"",
        "[[scorecard.target]]\nat_most = 1.0\np = 0.9",
        "[scorecard]\ntarget = []",
        "[scorecard]\ntarget = 3.28",
        "[[scorecard.quality.also]]\nmetric = \"val_bpb\"\nmargin = 0.1",
        "[[scorecard.quality.also]]\nmetric = \"val_loss\"",
    ] {
        let text = TINY.replace(
            "[scorecard]\ncontrol = { \"schedule.warmdown\" = \"linear\" }\nquality = { metric = \"val_bpb\", margin = 0.5, confidence = 0.9 }\n",
            "",
        );
        let place = Place::with(&format!("{text}\n{target}\n"));
        let ended = place.run(&["plan", "m.toml"]).expect(2);
        all.extend(["== ", target, "\n", &ended.stderr, "\n"]);
    }
    insta::assert_snapshot!(all);
}
