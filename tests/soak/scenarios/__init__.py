"""What is soaked; see .ci/soak."""
