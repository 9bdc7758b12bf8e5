//! A scaling fit from manifest to page: whatever the runs say, it is told, and what they do not say too.

use nanorun::internals::files::Files;
use nanorun::internals::record::{Row as _, ScalingRow, read_table};

use crate::support::{Place, TINY};

fn manifest(scaling: &str) -> String {
    let text = TINY
        .replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "")
        .replace(
            "\"schedule.warmdown\" = [\"linear\", \"sqrt\"]",
            "\"budget.steps\" = [4, 6, 8]\n\"model.depth\" = [1, 2, 3]",
        )
        .replace("[1, 2]", "[1]");
    format!("{text}\n[analysis]\nscaling = {scaling}\n")
}

#[test]
fn a_fit_is_in_card_table_json_page_and_figures() {
    let place = Place::with(&manifest("{ x = \"flops\", groups = \"budget\" }"));
    let planned = place.run(&["plan", "m.toml"]).expect(0).stdout;
    let said = "scaling: val_bpb in FLOPs, sizes of each budget 4 steps: 3, 6 steps: 3, 8 steps: 3, over 1 seed; intervals take \
                three seeds";
    assert!(planned.contains(said), "{planned}");
    let ended = place.run(&["run", "m.toml"]).expect(0);
    for part in ["\nscaling\n", "best params", "no intervals: they take three seeds, there are 1"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let rows: Vec<ScalingRow> =
        read_table(&Files::new(), &place.path("results/tiny").join(ScalingRow::FILE)).unwrap();
    let count = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
    assert_eq!((count("arm"), count("best")), (9, 3));
    let json = place.run(&["report", "m.toml", "--json", "--svg", "figures"]).expect(0).json();
    assert_eq!(json["scaling"]["groups"].as_array().unwrap().len(), 3);
    let figure = std::fs::read_to_string(place.path("figures/scaling.svg")).unwrap();
    assert!(figure.contains("params that scaling laws count") && !figure.contains("NaN"));
    let page = std::fs::read_to_string(place.path("results/tiny/report.html")).unwrap();
    assert!(page.contains("id=\"scaling\"") && page.contains("scaling-table"));

    // One law through all arms, of the same results.
    std::fs::write(place.path("m.toml"), manifest("{ x = \"tokens\" }")).unwrap();
    let report = place.run(&["report", "m.toml"]).expect(0).stdout;
    assert!(report.contains("\nscaling\nval_bpb = ") && report.contains(" tokens^"), "{report}");
}

#[test]
fn scalings_that_cannot_be_are_refused() {
    let mut all = String::new();
    for scaling in
        ["{ x = \"flop\" }", "{ x = \"flops\", groups = \"budgets\" }", "\"flops\"", "{ y = \"flops\" }"]
    {
        let ended = Place::with(&manifest(scaling)).run(&["plan", "m.toml"]).expect(2);
        all.extend(["== ", scaling, "\n", &ended.stderr, "\n"]);
    }
    insta::assert_snapshot!(all);
}
