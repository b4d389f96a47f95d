//! The sandbox of a running process: it limits what an attacker who takes it over can do.
//!
//! This is never the first line of defence, and no restriction is ever lifted again.

pub mod access;
pub mod calls;
pub mod dumps;
pub mod privileges;
