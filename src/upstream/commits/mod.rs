//! The pinned commits, oldest first. Each table states what it changes against the one before it.

mod c2c062aa;
mod c2f09686;
mod c324e69c;
mod c348fbb3;
mod c4e014d3;
mod c6ed7d1d;
mod c92d63d4;
mod ca67eba3;
mod ca825e63;
mod cdc54a1a;
mod ceb16d01;

use super::recipe::Recipe;

/// Every pinned commit, oldest first.
pub static RECIPES: [Recipe; 11] = [
    c348fbb3::RECIPE,
    ca67eba3::RECIPE,
    c2c062aa::RECIPE,
    c2f09686::RECIPE,
    c324e69c::RECIPE,
    c6ed7d1d::RECIPE,
    ca825e63::RECIPE,
    cdc54a1a::RECIPE,
    c4e014d3::RECIPE,
    ceb16d01::RECIPE,
    c92d63d4::RECIPE,
];

/// Why a commit has no recipe here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCommit {
    /// Fewer than seven digits.
    #[error("a commit needs at least 7 hex digits")]
    TooShort,
    /// Not hex digits, or more than 40.
    #[error("a commit is 7 to 40 hex digits")]
    NotHex,
    /// Not one of those that are pinned.
    #[error("no recipe is known for this commit")]
    NotPinned,
}

/// The recipe of the commit that begins with these 7 or more hex digits, in either case.
pub fn find(commit: &str) -> Result<&'static Recipe, UnknownCommit> {
    if commit.len() > 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(UnknownCommit::NotHex);
    }
    if commit.len() < 7 {
        return Err(UnknownCommit::TooShort);
    }
    let commit = commit.to_ascii_lowercase();
    RECIPES.iter().find(|recipe| recipe.commit.starts_with(&commit)).ok_or(UnknownCommit::NotPinned)
}

/// The newest pinned commit.
pub fn newest() -> &'static Recipe {
    let [.., newest] = &RECIPES;
    newest
}
