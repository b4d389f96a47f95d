//! Why a comparison is given up.

use std::fmt;

use crate::diff::class::WorkloadClass;

/// Why a comparison was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiffError {
    /// Selectors of a namespace can be combined in too many ways.
    TooManyWorkloads {
        /// The namespace.
        namespace: String,
        /// How many are compared at most.
        limit: usize,
    },
    /// Patterns divide the connections to one workload into too many classes.
    TooManyClasses {
        /// The workload.
        workload: WorkloadClass,
        /// The port.
        port: u16,
        /// How many are compared at most.
        limit: usize,
    },
}

impl fmt::Display for DiffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyWorkloads { namespace, limit } => write!(
                f,
                "selectors of namespace {namespace} combine to more than {limit} kinds of workloads; name one of them \
                 with its namespace and labels"
            ),
            Self::TooManyClasses { workload: WorkloadClass { namespace, labels, .. }, port, limit } => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(
                    f,
                    "patterns of the policies divide the connections to port {port} of workload {namespace} ({}) into more \
                     than {limit} classes; compare fewer policies at a time",
                    labels.join(",")
                )
            }
        }
    }
}

impl std::error::Error for DiffError {}
