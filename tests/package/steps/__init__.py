"""The parts of the test of a release; `tests/package/run` puts them together."""
