//! SPIFFE IDs, trust domains and what a leaf certificate must be
