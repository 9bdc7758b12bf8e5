//! `~` and environment variables in paths.

use crate::error::{Error, Result};

/// Expands a leading `~` and every `$NAME` or `${NAME}` from `variables`.
pub(crate) fn path(text: &str, variables: &[(String, String)]) -> Result<String> {
    let lookup = |name: &str| {
        variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).ok_or_else(|| {
            Error::input(format!("the path {text:?} needs the environment variable {name}, which is not set"))
        })
    };
    let mut expanded = String::new();
    let mut rest = text;
    if let Some(after) = text.strip_prefix('~').filter(|after| after.is_empty() || after.starts_with('/')) {
        expanded.push_str(lookup("HOME")?);
        rest = after;
    }
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let braced = after.strip_prefix('{').and_then(|braced| braced.split_once('}'));
        let (name, tail) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        });
        if name.is_empty() {
            expanded.push('$');
        } else {
            expanded.push_str(lookup(name)?);
        }
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    #[test]
    fn expands() {
        let variables = [("HOME", "/home/ada"), ("DATA", "/data")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let path = |text| super::path(text, &variables);
        assert_eq!(path("~/a/*.parquet").unwrap(), "/home/ada/a/*.parquet");
        assert_eq!(path("$DATA/x/${DATA}y~").unwrap(), "/data/x//datay~");
        assert_eq!(path("a$").unwrap(), "a$");
        assert!(path("$NOPE/x").unwrap_err().to_string().contains("NOPE"));
    }
}
