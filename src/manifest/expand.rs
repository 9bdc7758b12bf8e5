//! `~` and environment variables in paths. Everything after the manifest sees paths written out.

use crate::error::{Error, Result};

/// Expands a leading `~` and every `$NAME` or `${NAME}` from `variables`.
///
/// # Errors
/// A variable that is not set, or an unclosed `${`.
pub(crate) fn path(text: &str, variables: &[(String, String)]) -> Result<String> {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.ok_or_else(|| {
            Error::input(format!("the path {text:?} needs the environment variable {name}, which is not set"))
                .help(format!("set {name}, or write the path out"))
        })
    };
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    if let Some(below) = text.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/')) {
        expanded.push_str(value("HOME")?);
        rest = below;
    }
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, tail) = if let Some(braced) = after.strip_prefix('{') {
            let unclosed = || Error::input(format!("the path {text:?} has a `${{` without a `}}`"));
            braced.split_once('}').ok_or_else(unclosed)?
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        };
        expanded.push_str(if name.is_empty() { "$" } else { value(name)? });
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    #[test]
    fn home_and_variables() {
        let variables = [("HOME", "/home/ada"), ("DATA", "/data")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let path = |text| super::path(text, &variables).map_err(|error| error.to_string());
        assert_eq!(path("~/a/*.parquet").unwrap(), "/home/ada/a/*.parquet");
        assert_eq!(path("~").unwrap(), "/home/ada");
        assert_eq!(path("~bob/x").unwrap(), "~bob/x");
        assert_eq!(path("$DATA/x/${DATA}y~").unwrap(), "/data/x//datay~");
        assert_eq!(path("a$").unwrap(), "a$");
        assert_eq!(path("a$/b").unwrap(), "a$/b");
        assert!(path("$NOPE/x").unwrap_err().contains("NOPE, which is not set"));
        assert!(path("${DATA").unwrap_err().contains("without a `}`"));
    }
}
