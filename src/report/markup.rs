//! HTML and SVG as text. What this program says itself is a literal; whatever comes from elsewhere can only get in
//! escaped, so that a name, a question or a sample never becomes markup.

use std::fmt::Write as _;

use crate::text::printable;

/// Markup that grows at its end.
#[derive(Debug, Default, Clone)]
pub(super) struct Markup(String);

/// Attributes of an element.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A literal of the program, as it is. The type keeps out what was made at run time.
    pub(super) fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.0.push_str(literal);
        self
    }

    /// Text, escaped; characters that would act instead of being shown are spelled out.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in printable(text).chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// A name that somebody gave: text whose direction of writing stays its own.
    pub(super) fn name(&mut self, name: &str) -> &mut Self {
        self.raw("<bdi>").text(name).raw("</bdi>")
    }

    /// Begins an element. Values are escaped.
    pub(super) fn open(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.start(element, attributes).raw(">")
    }

    /// Ends it.
    pub(super) fn close(&mut self, element: &'static str) -> &mut Self {
        self.raw("</").raw(element).raw(">")
    }

    /// An element without content.
    pub(super) fn empty(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.start(element, attributes).raw("/>")
    }

    /// An element with text in it.
    pub(super) fn with_text(
        &mut self,
        element: &'static str,
        attributes: Attributes<'_>,
        text: &str,
    ) -> &mut Self {
        self.open(element, attributes).text(text).close(element)
    }

    fn start(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.raw("<").raw(element);
        for (name, value) in attributes {
            self.raw(" ").raw(name).raw("=\"");
            // Lines within an attribute stay lines.
            self.text(value).raw("\"");
        }
        self
    }

    /// Markup that was made elsewhere.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// A block of data for scripts. No `<` is left in it, so nothing in it ends the block.
    pub(super) fn data(&mut self, id: &'static str, value: &serde_json::Value) -> &mut Self {
        self.raw("<script type=\"application/json\" id=\"").raw(id).raw("\">");
        for character in value.to_string().chars() {
            match character {
                '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(character));
                }
                other => self.0.push(other),
            }
        }
        self.raw("</script>")
    }

    /// The text of it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of it.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Markup;

    #[test]
    fn what_comes_from_elsewhere_stays_text() {
        let mut markup = Markup::new();
        let evil = "</script><b a=\"1\" c='2'>&amp;\u{202e}\u{0}\n";
        markup.with_text("p", &[("title", evil)], evil);
        let escaped = "&lt;/script&gt;&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;\\u202e\\u0000\n";
        assert_eq!(markup.as_str(), format!("<p title=\"{escaped}\">{escaped}</p>"));
    }

    #[test]
    fn data_do_not_end_their_block() {
        let value = serde_json::json!({ "name": "</script><!--<script>\u{2028}\u{85}&" });
        let mut markup = Markup::new();
        markup.data("d", &value);
        let text = markup.into_string();
        let inside = text
            .strip_prefix("<script type=\"application/json\" id=\"d\">")
            .and_then(|rest| rest.strip_suffix("</script>"))
            .unwrap();
        assert!(!inside.contains(['<', '>', '&', '\u{2028}', '\u{85}']), "{inside}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(inside).unwrap(), value);
    }
}
