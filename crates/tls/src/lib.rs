//! mTLS with SPIFFE verification: bundles, SVIDs, verifiers, accept and connect
