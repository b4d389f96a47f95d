"""Debian's Prometheus with our scrape file and alerts, on 127.0.0.1 and in a hurry."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request

from rig.processes import RigError, free_port

PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus"}


class Prometheus:
    """Scrapes `targets` (instance -> port) each second. The files are those of `config`, with short delays: what waits for minutes
    there fires at once here."""

    def __init__(self, config, folder, targets, processes):
        folder.mkdir()
        self.port = free_port()
        scrape = (config / "prometheus.yaml").read_text()
        scrape = _replaced(scrape, r"scrape_interval: \S+", "scrape_interval: 1s")
        scrape = _replaced(scrape, r"scrape_timeout: \S+", "scrape_timeout: 1s")
        scrape = _replaced(scrape, r"evaluation_interval: \S+", "evaluation_interval: 1s")
        entries = "".join(f'\n      - targets: ["127.0.0.1:{port}"]\n        labels: {{instance: {name}}}'
                          for name, port in targets.items())
        scrape = _replaced(scrape, r"\n +- targets: \[\"web:15090\".*", entries)
        (folder / "prometheus.yaml").write_text(scrape)
        alerts = (config / "alerts.yaml").read_text()
        (folder / "alerts.yaml").write_text(_replaced(alerts, r"for: \S+", "for: 0s"))
        process = processes.start("prometheus", [
            "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"])
        processes.wait_until_ready(process, f"http://127.0.0.1:{self.port}/-/ready")

    def query(self, expression):
        """The series of an instant query; an error of PromQL is a `ValueError`."""
        return self._get("query", query=expression)["result"]

    def rules(self):
        """Name -> expression of every alert, as Prometheus reads them."""
        return {rule["name"]: rule["query"] for group in self._get("rules")["groups"] for rule in group["rules"]}

    def firing(self):
        """(alert, instance) of every alert that fires."""
        return {(alert["labels"]["alertname"], alert["labels"].get("instance"))
                for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}

    def labels(self, metric):
        """The labels that the series of a metric have; empty if there is none."""
        return {label for series in self._get("series", **{"match[]": metric}) for label in series}

    def up(self):
        return {series["metric"]["instance"] for series in self.query('up{job="portcullis"} == 1')}

    def _get(self, what, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None


def _replaced(text, pattern, by):
    """A file that no longer has what is replaced would be tested with its own delays."""
    text, count = re.subn(pattern, lambda _: by, text)
    if not count:
        raise RigError(f"there is no {pattern!r} in the file to test")
    return text
