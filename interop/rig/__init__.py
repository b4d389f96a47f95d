"""The parts of the interoperation rig; `interop/run` and `interop/tls-probes` put them together."""
