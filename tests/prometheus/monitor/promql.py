"""The names in a PromQL expression. A query for a name that does not exist is no error for Prometheus: it finds nothing, forever."""

import re

_TOKEN = re.compile(r"""
    (?P<text>"(?:[^"\\]|\\.)*"|'[^']*')
  | (?P<range>\[[^\]]*\])
  | (?P<number>\b[0-9][0-9a-zA-Z_.]*)
  | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<other>\S)
""", re.VERBOSE)
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _LISTS | {"and", "or", "unless", "offset", "bool", "inf", "nan"}
# What queries may add to a metric's own labels.
ADDED = {"le", "job", "instance", "__name__"}


def names(expression):
    """The metrics of an expression, each with the labels that its selectors compare, and the labels that its operators name."""
    tokens = [(match.lastgroup, match.group()) for match in _TOKEN.finditer(expression)]
    metrics, grouped, at = {}, set(), 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "word":
            continue
        if text.lower() in _LISTS and following == "(":
            at, found = _until(tokens, at + 1, ")")
            grouped |= {word for kind, word in found if kind == "word"}
        elif text.lower() not in _WORDS and following not in ("(", "by", "without"):
            compared = metrics.setdefault(text, set())
            if following == "{":
                at, found = _until(tokens, at + 1, "}")
                compared |= {word for kind, word in found if kind == "word"}
    return metrics, grouped


def _until(tokens, at, end):
    found = []
    while at < len(tokens) and tokens[at][1] != end:
        found.append(tokens[at])
        at += 1
    return at + 1, found


def problem(expression, labels_of):
    """Which name does not exist; `labels_of(metric)` are the labels that a metric has, none if there is no such metric."""
    metrics, grouped = names(expression)
    if not metrics:
        return "it names no metric"
    known = set()
    for metric, compared in metrics.items():
        labels = labels_of(metric)
        if not labels:
            return f"there is no metric {metric}"
        known |= labels
        if missing := compared - labels - ADDED:
            return f"{metric} has no label {', '.join(sorted(missing))}"
    missing = grouped - known - ADDED
    return f"no metric of it has a label {', '.join(sorted(missing))}" if missing else None
