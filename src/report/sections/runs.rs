//! Every run: its numbers, its key and hashes, and where it was made.

use super::super::markup::Markup;
use super::super::scale::{duration, fixed, grouped};
use super::super::subject::Run;
use super::super::table::{Cell, numbers, table, words};
use super::super::view::{View, shown};
use super::heading;

pub(super) fn runs(page: &mut Markup, view: &View<'_>) {
    heading(page, "runs", "Runs");
    let mut results = Vec::new();
    let mut places = Vec::new();
    for (place, subject) in view.subjects.iter().enumerate() {
        for run in &subject.runs {
            let name = match view.arm(place, &run.row.arm).filter(|_| run.is_planned()) {
                Some(arm) => Cell::Arm(arm.name.clone(), arm.look),
                None => Cell::Text(shown(&run.row.arm).to_owned()),
            };
            results.push(result(name.clone(), run));
            places.push(made(name, run));
        }
    }
    let headings = [
        words("run"),
        numbers("seed"),
        words("status"),
        numbers("steps"),
        numbers("val_bpb"),
        numbers("last loss"),
        numbers("tokens/s"),
        words("result hash"),
    ];
    table(page, "runs-table", "Every run with its final numbers", &headings, &results);
    let headings = [
        words("run"),
        numbers("seed"),
        words("run key"),
        words("result hash"),
        words("environment class"),
        words("made on"),
        words("when"),
    ];
    page.raw("<details>")
        .with_text("summary", &[], "Whole keys and hashes, environments and machines")
        .raw("\n");
    table(page, "environments-table", "What each run is, and where and when it was made", &headings, &places);
    page.raw("</details>\n");
    let note = "Runs of equal key have equal bits within one environment class: equal losses, parameters and evaluations, \
        and so an equal result hash. When and where a run was made enters no hash.";
    page.with_text("p", &[("class", "quiet")], note).raw("\n");
}

fn result(name: Cell, run: &Run) -> Vec<Cell> {
    let row = &run.row;
    let number =
        |value: Option<f64>| value.map_or(Cell::Nothing, |value| Cell::Number(fixed(value, 5), value));
    let class = match row.status.as_str() {
        "finished" => "",
        "diverged" | "failed" | "damaged" => "bad-word",
        "retired" | "not needed" => "plain-word",
        _ => "open-word",
    };
    let status = match &row.reason {
        Some(reason) if !run.is_finished() => format!("{}: {reason}", row.status),
        _ => row.status.clone(),
    };
    vec![
        name,
        Cell::Count(row.seed.to_string()),
        Cell::Word(status, class),
        Cell::Count(if row.steps_done == row.steps {
            grouped(row.steps)
        } else {
            format!("{} of {}", grouped(row.steps_done), grouped(row.steps))
        }),
        number(row.val_bpb),
        number(row.final_loss.map(f64::from)),
        row.tokens_per_second
            .map_or(Cell::Nothing, |speed| Cell::Number(grouped(speed.round() as u64), speed)),
        row.result_hash.as_ref().map_or(Cell::Nothing, |hash| Cell::Code(start(hash), hash.clone())),
    ]
}

fn made(name: Cell, run: &Run) -> Vec<Cell> {
    let row = &run.row;
    let mut machine = vec![if row.host.is_empty() { String::new() } else { format!("{}:", row.host) }];
    machine.push(row.accelerator.clone().unwrap_or_else(|| row.cpu_model.clone()));
    machine.push(if row.threads == 0 { String::new() } else { format!("{} threads", row.threads) });
    machine.push(if row.alone { String::new() } else { "other runs beside it".to_owned() });
    machine.push(match row.shared_steps {
        0 => String::new(),
        steps => format!("{steps} steps shared"),
    });
    machine.push(match row.resumes {
        0 => String::new(),
        1 => "resumed once".to_owned(),
        times => format!("resumed {times} times"),
    });
    machine.extend(row.reason.clone().filter(|_| run.is_finished()));
    machine.retain(|part| !part.is_empty());
    let made = run.row.result_hash.is_some() || !row.started.is_empty();
    let whole = |text: &str| Cell::Code(text.to_owned(), text.to_owned());
    vec![
        name,
        Cell::Count(row.seed.to_string()),
        whole(&row.run_key),
        row.result_hash.as_deref().map_or(Cell::Nothing, whole),
        if made {
            Cell::Text(format!("{}, numerics version {}", row.environment_class, row.numerics_version))
        } else {
            Cell::Nothing
        },
        if made { Cell::Text(machine.join(" ")) } else { Cell::Nothing },
        if made {
            Cell::Text(format!(
                "{} to {}, {} in steps",
                row.started,
                row.finished,
                duration(row.train_seconds)
            ))
        } else {
            Cell::Nothing
        },
    ]
}

/// As much of a hash as people compare.
fn start(hash: &str) -> String {
    hash.chars().take(12).collect()
}
