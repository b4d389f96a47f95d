//! Panics: each is logged with the place where it happened, and told by the record of the connection that it ended.
//!
//! A panic is a mistake of ours. It ends the connection in whose task it happened and no other, so without these it would
//! be a line on standard error that nobody counts.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::thread;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Logs every panic of this process from now on, instead of the text on standard error.
pub fn log() {
    panic::set_hook(Box::new(note));
}

fn note(info: &PanicHookInfo<'_>) {
    let location = info.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
    // A message that was put together may hold what a peer sent, so only one that stands in the source is logged.
    let message = info.payload().downcast_ref::<&'static str>().copied();
    let thread = thread::current();
    tracing::error!(location, message, thread = thread.name(), "panic: a mistake in this program, please report it");
    let _ending = LAST.try_with(|last| last.replace(Some(location)));
}

/// Where the last panic of this thread happened. While it unwinds, that is the one that unwinds it.
pub(crate) fn location() -> Option<String> {
    LAST.try_with(|last| last.borrow().clone()).ok().flatten()
}
