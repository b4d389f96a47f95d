"""The parts of the interoperation rig; `tests/interop/run` and `tests/interop/tls-probes` put them together."""
