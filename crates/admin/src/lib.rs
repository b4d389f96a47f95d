//! The admin server: health, readiness and metrics
