"""Renders the chart with Helm's own engine, and validates every manifest against the schemas of Kubernetes.

chart.py CHART render [VALUES]   prints the manifests, one JSON object a line
chart.py CHART check             lints and renders every file of ci/ and of the arguments that follow
chart.py CHART refuse VALUES     prints why the chart refuses these values
chart.py CHART reuse OLD VALUES  renders with the values of an older release, as `helm upgrade --reuse-values` does:
                                 without the keys that are new in the chart's own values
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

RELEASES = ["1.35", "1.36", "1.37"]
NAME, NAMESPACE = "demo", "agents"


def manifests(chart, values):
    rendered = chart.render(values=values, name=NAME, namespace=NAMESPACE)
    for path, text in sorted(rendered["manifests"].items() if "manifests" in rendered else rendered.items()):
        if path.endswith("NOTES.txt"):
            continue
        yield from (document for document in yaml.safe_load_all(text) if document)


def check(folder, chart, files):
    for file in files:
        values = yaml.safe_load(file.read_text()) or {}
        report = helm_python.lint(str(folder), values, strict=True, kube_version="v1.35.0")
        findings = [message for message in report["messages"] if message["severity"] >= 2]
        assert not report["errors"] and not findings, (file, report)
        documents = list(manifests(chart, values))
        for document in documents:
            if document["apiVersion"].startswith("monitoring.coreos.com/"):
                continue  # none of Kubernetes' own: what it must agree with is tested by itself
            for release in RELEASES:
                kubernetes_validate.validate(document, release, strict=True)
        kinds = sorted(document["kind"] for document in documents)
        print(f"{file.name}: {len(documents)} manifests: {' '.join(kinds)}")


def main():
    folder, verb, *rest = Path(sys.argv[1]), *sys.argv[2:]
    if verb == "reuse":
        with tempfile.TemporaryDirectory() as place:
            older = Path(shutil.copytree(folder, Path(place) / "agentsecrets"))
            shutil.copy(rest[0], older / "values.yaml")
            with helm_python.Chart.load(older) as chart:
                for document in manifests(chart, yaml.safe_load(Path(rest[1]).read_text())):
                    print(json.dumps(document))
        return
    with helm_python.Chart.load(folder) as chart:
        values = yaml.safe_load(Path(rest[0]).read_text()) if rest and verb != "check" else {}
        match verb:
            case "render":
                for document in manifests(chart, values):
                    print(json.dumps(document))
            case "check":
                files = sorted(folder.glob("ci/*.yaml")) + [Path(file) for file in rest]
                assert files
                check(folder, chart, files)
            case "refuse":
                try:
                    list(manifests(chart, values))
                except helm_python.HelmError as error:
                    print(error)
                else:
                    sys.exit("the chart takes these values")


main()
