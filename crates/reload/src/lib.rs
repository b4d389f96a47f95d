//! Hot reload: notices that files changed, reads the whole set, passes it to a loader, and keeps the last good one in force.
//!
//! The crate knows nothing of policies or certificates. A [`FileSet`] says which files form one set; a [`Watcher`] reads
//! them and calls a loader with the complete set whenever their content differs from what the loader got last. The loader
//! owns the parsed value and its swap; if it refuses a set, what was in force stays in force.
//!
//! Guarantees:
//! - A change is found by inotify, by a periodic rescan that compares **contents** (never times), or on request
//!   ([`Monitor::reload_now`]); each alone is enough. Watches follow folders that are deleted, created or swapped.
//! - Events of other files, at any rate, cost at most about 1 % of a core and a bounded amount of memory.
//! - A set is handed over whole. A write in progress (an empty file, a file that is gone for less than [`REMOVAL_DELAY`], a file
//!   that a writer has open for less than [`MAX_WRITE`], one half of a key pair) never takes effect.
//! - Deleting every file takes effect only if events show that the files were deleted. A folder whose volume is gone, or that is
//!   suddenly empty, keeps the last good set in force and raises an alarm.
//! - No path can block or flood the process: FIFOs and devices are refused, sizes are capped, links may not leave the
//!   folder.
//! - Only dropping the [`Watcher`] ends it: errors and a panicking loader appear in the [`ReloadStatus`].
//!
//! It fails closed: one file that cannot be read makes the whole set unreadable, and the last good one stays in force.

mod directory_events;
mod engine;
mod error;
mod events;
mod extension;
mod file;
mod file_events;
mod file_set;
mod folder;
mod ignored;
mod inbox;
mod limits;
mod observations;
mod origin;
mod reading;
mod reconciler;
mod removal_delay;
mod sample;
mod status;
mod watched_names;
mod watcher;

pub use error::{ReadError, ReadErrors};
pub use extension::EXTENSIONS;
pub use file::{Content, FileContent};
pub use file_set::{FileSet, ReadPaths};
pub use ignored::{Ignored, IgnoredReason, ignored_files};
pub use limits::{MAX_FILE_BYTES, MAX_FOLDER_BYTES, MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES};
pub use observations::MAX_WRITE;
pub use reading::Reading;
pub use removal_delay::REMOVAL_DELAY;
pub use status::{Monitor, Problem, ReloadStatus};
pub use watcher::{Options, StartError, Watcher};
