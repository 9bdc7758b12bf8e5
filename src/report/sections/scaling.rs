//! The scaling fit: its figure, the best size of each budget, and the laws.

use super::super::markup::Markup;
use super::super::page::Figures;
use super::super::scale::{fixed, short};
use super::super::table::{Cell, leave_out_unknown, numbers, table, words};
use super::{drawings, heading};

pub(super) fn scaling(page: &mut Markup, figures: &Figures) {
    if figures.scalings.is_empty() {
        return;
    }
    heading(page, "scaling", "Scaling");
    for figure in &figures.scalings {
        let scaling = &figure.scaling;
        page.raw("<figure>\n");
        drawings(page, &|width| figure.drawing(width));
        let caption = if scaling.by_budget {
            "A dot is an arm, the mean over its seeds; a curve the parabola through the arms of one budget in the logarithm \
             of their params, a ring its lowest point. A best size beyond those that were tried is none."
        } else {
            "A dot is an arm, the mean over its seeds; the curve is the power law through all of them."
        };
        page.with_text("figcaption", &[], caption).raw("\n</figure>\n");
        if scaling.by_budget {
            let mut rows: Vec<Vec<Cell>> = scaling
                .groups
                .iter()
                .map(|group| {
                    let of = |of: fn(&crate::scorecard::Optimum) -> f64| group.optimum.as_ref().map(of);
                    let number = |value: Option<f64>| {
                        value.map_or(Cell::Nothing, |value| Cell::Number(short(value), value))
                    };
                    vec![
                        Cell::Text(group.budget.clone()),
                        Cell::Count(group.points.len().to_string()),
                        number(of(|optimum| optimum.params)),
                        match group.optimum.and_then(|o| o.params_lower.zip(o.params_upper)) {
                            Some((lower, upper)) => Cell::Range((short(lower), lower), (short(upper), upper)),
                            None => Cell::Nothing,
                        },
                        number(of(|optimum| optimum.tokens)),
                        of(|optimum| optimum.value).map_or(Cell::Nothing, |value| {
                            Cell::Number(fixed(value, figure.digits()), value)
                        }),
                        group.why_none.clone().map_or(Cell::Nothing, Cell::Text),
                    ]
                })
                .collect();
            let mut headings = vec![
                words("budget"),
                numbers("arms"),
                numbers("best params"),
                numbers("interval"),
                numbers("tokens"),
                numbers(&scaling.metric),
                words("why none"),
            ];
            leave_out_unknown(&mut headings, &mut rows);
            table(page, "scaling-table", "The best size of each budget", &headings, &rows);
        }
        page.raw("<ul>\n");
        for law in &scaling.laws {
            page.with_text("li", &[], &scaling.said(law)).raw("\n");
        }
        for note in &scaling.notes {
            page.with_text("li", &[("class", "quiet")], note).raw("\n");
        }
        page.raw("</ul>\n");
    }
}
