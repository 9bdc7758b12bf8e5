//! Tables of a page.

use super::markup::Markup;
use super::palette::Look;

/// What a cell shows.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// Words of the program.
    Text(String),
    /// An arm, with its colour.
    Arm(String, Look),
    /// A number as it is shown, and exactly.
    Number(String, f64),
    /// A mean and its spread as they are shown, and exactly.
    Spread((String, f64), Option<(String, f64)>),
    /// Two ends as they are shown, and exactly.
    Range((String, f64), (String, f64)),
    /// A number without more to it than is shown.
    Count(String),
    /// A hash or a key: as much of it as is shown, and the whole.
    Code(String, String),
    /// A word that is good or bad news, by its class.
    Word(String, &'static str),
    /// Nothing is known.
    Nothing,
}

/// A column: its heading, and whether its cells are numbers.
#[derive(Debug, Clone)]
pub(super) struct Heading(pub(super) String, pub(super) bool);

/// A column of words.
pub(super) fn words(heading: &str) -> Heading {
    Heading(heading.to_owned(), false)
}

/// A column of numbers.
pub(super) fn numbers(heading: &str) -> Heading {
    Heading(heading.to_owned(), true)
}

/// Takes out the columns in which nothing is known: they say nothing.
pub(super) fn leave_out_unknown(headings: &mut Vec<Heading>, rows: &mut [Vec<Cell>]) {
    for column in (0..headings.len()).rev() {
        if rows.iter().all(|row| matches!(row.get(column), Some(Cell::Nothing))) {
            headings.remove(column);
            for row in &mut *rows {
                row.remove(column);
            }
        }
    }
}

/// Adds a table that scrolls by itself where it is wider than the page. The first cell of a row is its heading.
pub(super) fn table(
    page: &mut Markup,
    id: &'static str,
    caption: &str,
    headings: &[Heading],
    rows: &[Vec<Cell>],
) {
    page.open("div", &[("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", caption)]);
    page.open("table", &[("id", id)]).with_text("caption", &[], caption).raw("<thead><tr>");
    for Heading(heading, numeric) in headings {
        let class = if *numeric { "n" } else { "" };
        page.open("th", &[("scope", "col"), ("class", class)]).text(heading).close("th");
    }
    page.raw("</tr></thead><tbody>\n");
    for row in rows {
        page.raw("<tr>");
        for (at, (content, Heading(_, numeric))) in row.iter().zip(headings).enumerate() {
            let element = if at == 0 { "th" } else { "td" };
            let class = match content {
                _ if *numeric => "n",
                // Words wrap where they are many.
                Cell::Text(text) if text.len() > 24 => "long",
                Cell::Code(shown, whole) if shown == whole => "long",
                _ => "",
            };
            let attributes: &[_] =
                if at == 0 { &[("scope", "row"), ("class", class)] } else { &[("class", class)] };
            page.open(element, attributes);
            cell(page, content);
            page.close(element);
        }
        page.raw("</tr>\n");
    }
    page.raw("</tbody></table></div>\n");
}

fn cell(page: &mut Markup, cell: &Cell) {
    match cell {
        Cell::Text(text) | Cell::Count(text) => page.text(text),
        Cell::Arm(name, look) => {
            page.raw("<span class=\"armed\">");
            page.open("span", &[("class", &format!("swatch {}", look.class()))]).close("span");
            page.name(name).raw("</span>")
        }
        Cell::Number(shown, exact) => number(page, shown, *exact),
        Cell::Spread((mean, exact), deviation) => {
            number(page, mean, *exact);
            if let Some((shown, exact)) = deviation {
                page.raw(" <span class=\"spread\">\u{b1} ");
                number(page, shown, *exact).raw("</span>");
            }
            page
        }
        Cell::Range((from, lower), (to, upper)) => {
            number(page, from, *lower).raw(" to ");
            number(page, to, *upper)
        }
        Cell::Code(shown, whole) if shown == whole => page.with_text("code", &[], shown),
        Cell::Code(shown, whole) => page.with_text("code", &[("title", whole)], shown),
        Cell::Word(word, class) => page.with_text("span", &[("class", class)], word),
        Cell::Nothing => page.raw("<span class=\"plain-word\">\u{2013}</span>"),
    };
}

fn number<'a>(page: &'a mut Markup, shown: &str, exact: f64) -> &'a mut Markup {
    page.with_text("data", &[("value", &exact.to_string())], shown)
}
