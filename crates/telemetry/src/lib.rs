//! Connection records, access log and metrics
