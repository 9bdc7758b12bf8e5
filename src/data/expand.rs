//! `~` and environment variables in paths.

use crate::error::{Error, Result};

/// Expands a leading `~`, `$NAME` and `${NAME}`.
///
/// # Errors
/// A variable that is not set, or an unclosed `${`.
pub fn expand(path: &str) -> Result<String> {
    expand_with(path, &|name| std::env::var(name).ok())
}

fn expand_with(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let value = |name: &str| {
        variable(name).ok_or_else(|| {
            Error::input(format!("`{path}` names the environment variable {name}, which is not set"))
                .help(format!("set {name}, or write the path out"))
        })
    };
    let mut expanded = String::with_capacity(path.len());
    let mut rest = path;
    if let Some(below) = path.strip_prefix('~')
        && (below.is_empty() || below.starts_with('/'))
    {
        expanded.push_str(&value("HOME")?);
        rest = below;
    }
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(braced) = after.strip_prefix('{') {
            let Some((name, after)) = braced.split_once('}') else {
                return Err(Error::input(format!("`${{` without `}}` in `{path}`")));
            };
            expanded.push_str(&value(name)?);
            rest = after;
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                expanded.push('$');
            } else {
                expanded.push_str(&value(name)?);
            }
            rest = after;
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_and_variables() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/ada".to_owned()),
            "DATA" => Some("shards".to_owned()),
            _ => None,
        };
        let expanded = |path: &str| expand_with(path, &variable).map_err(|error| error.to_string());
        assert_eq!(expanded("~/a/$DATA/*.parquet").unwrap(), "/home/ada/a/shards/*.parquet");
        assert_eq!(expanded("${DATA}_x/~").unwrap(), "shards_x/~");
        assert_eq!(expanded("a$/b").unwrap(), "a$/b");
        assert_eq!(expanded("~").unwrap(), "/home/ada");
        assert_eq!(expanded("~bob/x").unwrap(), "~bob/x");
        assert!(expanded("$NOWHERE/x").unwrap_err().contains("NOWHERE, which is not set"));
        assert!(expanded("${DATA").unwrap_err().contains("without `}`"));
    }
}
