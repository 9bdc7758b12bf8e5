//! One line of a file of JSON lines: an object, of which one field is the text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What the field of a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A text.
    Text(String),
    /// `null`.
    Null,
    /// The object has no such field.
    Absent,
    /// Something else.
    Other(&'static str),
}

/// The field `column` of the object in `line`. Where it stands twice, the later one counts, as with most readers.
///
/// # Errors
/// Says why the line is no JSON object.
pub(super) fn field(line: &str, column: &str) -> Result<Field, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let field = FieldOf(column).deserialize(&mut json).and_then(|field| json.end().map(|()| field));
    field.map_err(|error| {
        // The line is the caller's to count.
        let text = error.to_string();
        text.replace(" at line 1 column ", " at character ").replace(" at line 1", "")
    })
}

/// The names of the fields in `line`, at most eight.
pub(super) fn names(line: &str) -> Vec<String> {
    let fields: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(line);
    fields.map_or_else(|_| Vec::new(), |fields| fields.into_iter().map(|(name, _)| name).take(8).collect())
}

struct FieldOf<'c>(&'c str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let mut field = Field::Absent;
        while let Some(wanted) = map.next_key_seed(Is(self.0))? {
            if wanted {
                field = map.next_value_seed(Held)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(field)
    }
}

/// Whether a key is this one.
struct Is<'c>(&'c str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// What stands in the field.
struct Held;

impl<'de> DeserializeSeed<'de> for Held {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Held {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_of_an_object() {
        let text = |text: &str| Ok(Field::Text(text.to_owned()));
        assert_eq!(
            field(r#"{"id": 1, "text": "caf\u00e9\n", "more": [{}, "text"]}"#, "text"),
            text("café\n")
        );
        assert_eq!(field(r#" {"te\u0078t": "a", "text": "b"} "#, "text"), text("b"));
        assert_eq!(field(r#"{"text": null}"#, "text"), Ok(Field::Null));
        assert_eq!(field(r#"{"meta": {"text": "inner"}}"#, "text"), Ok(Field::Absent));
        for (line, what) in [
            (r#"{"text": 3}"#, "a number"),
            (r#"{"text": -3.5e9}"#, "a number"),
            (r#"{"text": ["a"]}"#, "an array"),
            (r#"{"text": {"a": 1}}"#, "an object"),
            (r#"{"text": false}"#, "true or false"),
        ] {
            assert_eq!(field(line, "text"), Ok(Field::Other(what)), "{line}");
        }
        for line in
            ["", "text", "[1]", "\"a\"", r#"{"text": "a""#, r#"{"text": "a"} b"#, r#"{"text": "\ud800"}"#]
        {
            assert!(field(line, "text").is_err(), "{line}");
        }
        assert_eq!(names(r#"{"a": 1, "b": {}}"#), ["a", "b"]);
        // Nesting has no end here that the stack could meet.
        assert!(field(&format!("{{\"a\": {}", "[".repeat(1 << 20)), "text").is_err());
    }
}
