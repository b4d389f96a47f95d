//! `portcullis get`, `apply`, `diff` and `delete`: kubectl's commands on the policy folder, without a cluster.

pub(crate) mod apply;
pub(crate) mod break_glass;
mod commit;
pub(crate) mod delete;
pub(crate) mod diff;
mod effects;
pub(super) mod folder;
mod foresee;
pub(crate) mod get;
pub(super) mod guard;
mod input;
mod located;
mod rows;
