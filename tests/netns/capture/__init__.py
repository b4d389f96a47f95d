"""The parts of the tests of transparent capture; `tests/netns/run` puts them together."""
