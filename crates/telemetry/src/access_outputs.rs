//! Where the lines of the access log go.

use std::sync::Arc;

use crate::access_format::AccessLog;
use crate::export::AccessSink;
use crate::log::Output;

/// Where the lines of the access log go.
pub struct AccessOutputs {
    /// Their form on standard output.
    pub form: AccessLog,
    /// Standard output.
    pub output: Output,
    /// Another receiver, whatever the form.
    pub sink: Option<Arc<dyn AccessSink>>,
}
