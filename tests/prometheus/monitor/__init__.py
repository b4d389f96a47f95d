"""The parts of the test of Prometheus; `tests/prometheus/run` puts them together."""
