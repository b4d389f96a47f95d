//! Hot reload: notice that files changed, read the whole set carefully, hand it to a loader, keep the last good one.
//!
//! The crate knows nothing of policies or certificates. A [`Source`] says which files form one set; a [`Watcher`] looks
//! at them and calls a loader with the complete set whenever their content is different from what the loader saw last.
//! The loader owns the parsed value and its swap; if it refuses a set, what was in force stays in force.
//!
//! Guarantees:
//! - A change is found by inotify, by a periodic rescan that compares **contents** (never times), or on request
//!   ([`Monitor::reload_now`]); each alone is enough. Watches follow folders that are deleted, created or swapped.
//! - A set is handed over whole. What looks like a write in progress (an empty file, a file that is gone for less than
//!   [`GONE_FOR`], one half of a key pair) is waited for before an alarm is raised, and never opens anything meanwhile.
//! - No path can block or flood the process: FIFOs and devices are refused, sizes are capped, links may not leave the
//!   folder.
//! - Nothing ends the watching but dropping the [`Watcher`]: errors and a panicking loader become the [`Status`].
//!
//! It refuses to guess: whatever cannot be read makes the whole set unreadable, which leaves the last good one alone.

mod absence;
mod engine;
mod error;
mod file;
mod folder;
mod interest;
mod notice;
mod progress;
mod signals;
mod source;
mod status;
mod watcher;

pub use absence::GONE_FOR;
pub use error::{ReadError, ReadErrors};
pub use file::{Content, FileContent, MAX_FILE_BYTES};
pub use folder::{MAX_FOLDER_BYTES, MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES};
pub use source::{Reach, Reading, Source};
pub use status::{Monitor, Problem, Status};
pub use watcher::{Options, StartError, Watcher};
