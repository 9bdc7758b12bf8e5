//! Panics of libraries as values. The one place that has a panic hook.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

/// What a panic carries.
pub type Payload = dyn Any + Send;

/// Tells the panics to catch from others.
pub type Expected = fn(&Payload) -> bool;

thread_local! {
    /// Which panics of this thread are caught and not to be written about.
    static EXPECTED: Cell<Option<Expected>> = const { Cell::new(None) };
}

/// Runs `call` and gives back a panic of this thread that is `expected`, of which nothing is printed. Any other panic
/// goes on. What `call` left half done must not be used after a panic.
///
/// # Errors
/// What the panic carries.
pub fn caught<T>(expected: Expected, call: impl FnOnce() -> T) -> Result<T, Box<Payload>> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |info| {
            if !is_caught(info.payload()) {
                hook(info);
            }
        }));
    });
    let outer = EXPECTED.replace(Some(expected));
    let outcome = catch_unwind(AssertUnwindSafe(call));
    EXPECTED.set(outer);
    outcome.or_else(|panic| if expected(panic.as_ref()) { Err(panic) } else { resume_unwind(panic) })
}

/// Whether [`caught`] catches a panic of this thread: for a hook set by somebody else.
pub fn is_caught(panic: &Payload) -> bool {
    EXPECTED.get().is_some_and(|expected| expected(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_words(panic: &Payload) -> bool {
        panic.is::<&str>()
    }

    #[test]
    fn an_expected_panic_is_a_value() {
        assert_eq!(caught(in_words, || 3).ok(), Some(3));
        let panic = caught(in_words, || panic!("gave up")).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"gave up"));
    }

    #[test]
    fn another_panic_goes_on_and_the_outer_call_catches_it() {
        let outcome = caught(|_| true, || caught(in_words, || std::panic::panic_any(17)).is_ok());
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&17));
        assert!(EXPECTED.get().is_none());
    }
}
