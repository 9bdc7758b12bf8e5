//! What was trained and validated on.

use super::super::markup::Markup;
use super::super::scale::grouped;
use super::super::view::View;
use super::{distinct, heading, whose};

pub(super) fn data(page: &mut Markup, view: &View<'_>) {
    heading(page, "data", "Data");
    for (place, subject) in view.subjects.iter().enumerate() {
        whose(page, view, place);
        let all = distinct(subject.runs.iter().filter(|run| run.is_planned()).map(|run| &run.data));
        for data in &all {
            let who = distinct(
                subject
                    .runs
                    .iter()
                    .filter(|run| run.is_planned() && run.data == **data)
                    .map(|run| run.row.arm.as_str()),
            );
            page.raw("<dl class=\"pairs\">\n");
            let mut pair = |name: &str, value: &str| {
                page.with_text("dt", &[], name).with_text("dd", &[], value).raw("\n");
            };
            if all.len() > 1 {
                pair("arms", &who.join(", "));
            }
            pair("shards", &data.shards);
            pair("tokenizer", &data.tokenizer);
            if let Some(size) = &data.size {
                pair("trains on", &format!("{}, read {}", size.train.size(), size.train.times()));
                pair(
                    "validates on",
                    &format!(
                        "{}, of which an evaluation reads {}",
                        size.validation.size(),
                        size.validation.times()
                    ),
                );
            }
            pair("an evaluation counts", &format!("{} tokens", grouped(data.eval_tokens)));
            let definition = data.measured.get(&subject.metric).map(Vec::as_slice).unwrap_or_default();
            let measured: Vec<String> =
                definition.iter().map(|(field, value)| format!("{field} = {value}")).collect();
            pair(&format!("{} is measured by", subject.metric), &measured.join(", "));
            if let Some(content) = &data.content {
                page.with_text("dt", &[], "hash of all contents").raw("<dd>");
                page.with_text("code", &[], content).raw("</dd>\n");
            }
            page.raw("</dl>\n");
        }
    }
}
