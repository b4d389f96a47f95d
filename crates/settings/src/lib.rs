//! The proxy's own configuration file, validated, with every default in one place
