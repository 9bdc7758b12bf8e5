//! What all drawings have in common.

use unicode_width::UnicodeWidthStr as _;

use super::markup::Markup;

/// The style of a drawing that stands in a file of its own: the same classes as the page's.
const STYLE: &str = concat!("<style>", include_str!("figures.css"), "</style>");

/// A drawing: what it says in a line and in full, and its size and content.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    /// What it is, for a tooltip and for screen readers.
    pub(super) title: String,
    /// What it shows, in words.
    pub(super) description: String,
    /// Its width, in units of its text's size of 13.
    pub(super) width: f64,
    /// Its height.
    pub(super) height: f64,
    /// Its elements.
    pub(super) body: Markup,
}

impl Drawing {
    /// As part of a page, whose style sheet it uses.
    pub(super) fn inline(&self) -> Markup {
        let mut markup = Markup::new();
        self.element(&mut markup, false);
        markup
    }

    /// As a file.
    pub(super) fn file(&self) -> String {
        let mut markup = Markup::new();
        self.element(&mut markup, true);
        markup.raw("\n").as_str().to_owned()
    }

    fn element(&self, markup: &mut Markup, alone: bool) {
        let view = format!("0 0 {} {}", number(self.width), number(self.height));
        let (width, height) = (number(self.width), number(self.height));
        let mut attributes =
            vec![("viewBox", view.as_str()), ("role", "img"), ("aria-label", self.title.as_str())];
        if alone {
            attributes.extend([
                ("xmlns", "http://www.w3.org/2000/svg"),
                ("class", "drawing alone"),
                ("width", width.as_str()),
                ("height", height.as_str()),
            ]);
        } else {
            attributes.extend([("class", "drawing"), ("width", width.as_str()), ("height", height.as_str())]);
        }
        markup.open("svg", &attributes);
        markup.with_text("title", &[], &self.title);
        markup.with_text("desc", &[], &self.description);
        if alone {
            markup.raw(STYLE);
            markup.raw("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>");
        }
        markup.append(&self.body).close("svg");
    }
}

/// A place, with as many digits as the eye needs.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// What a character takes at size 13, in a face that is wider than most.
pub(super) const CHARACTER: f64 = 7.9;

/// About what text takes at size 13.
pub(super) fn text_width(text: &str) -> f64 {
    text.width() as f64 * CHARACTER
}

/// Adds a line.
pub(super) fn line(body: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    body.empty(
        "line",
        &[
            ("class", class),
            ("x1", &number(from.0)),
            ("y1", &number(from.1)),
            ("x2", &number(to.0)),
            ("y2", &number(to.1)),
        ],
    );
}

/// Adds text; `anchor` is `start`, `middle` or `end`.
pub(super) fn text(body: &mut Markup, class: &str, at: (f64, f64), anchor: &str, text: &str) {
    let attributes =
        [("class", class), ("x", &*number(at.0)), ("y", &*number(at.1)), ("text-anchor", anchor)];
    body.with_text("text", &attributes, text);
}

/// Adds a dot with a tooltip.
pub(super) fn dot(body: &mut Markup, class: &str, at: (f64, f64), radius: f64, tip: &str) {
    body.open(
        "circle",
        &[("class", class), ("cx", &number(at.0)), ("cy", &number(at.1)), ("r", &number(radius))],
    );
    body.with_text("title", &[], tip).close("circle");
}
