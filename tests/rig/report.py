"""The table of what was expected and what was seen."""


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.group = None

    def add(self, group, case, expected, problem):
        """`problem` is None if all was as expected."""
        if group != self.group:
            print(f"\n{group}", flush=True)
            self.group = group
        if problem is None:
            self.passed += 1
            print(f"  ok    {case:<62} {expected}", flush=True)
        else:
            self.failed += 1
            print(f"  MISS  {case:<62} {expected}\n        seen: {problem}", flush=True)

    def finish(self):
        """Prints the closing line; returns the exit code."""
        print(f"\n{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0
