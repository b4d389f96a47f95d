//! Panics: each is logged with its location, and named in the record of the connection that it ended.
//!
//! A panic is a bug in Portcullis. It ends only the connection in whose task it happened, so without this it would be an
//! uncounted line on standard error.

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
    // A formatted message may contain what a peer sent, so only literals are logged.
    let message = info.payload().downcast_ref::<&'static str>().copied();
    let thread = thread::current();
    tracing::error!(location, message, thread = thread.name(), "panic: a mistake in this program, please report it");
    let _ending = LAST.try_with(|last| last.replace(Some(location)));
}

/// The location of the last panic of this thread; during unwinding, of the panic that unwinds it.
pub(crate) fn location() -> Option<String> {
    LAST.try_with(|last| last.borrow().clone()).ok().flatten()
}
