"""Parses the metrics at a URL with Prometheus's own parser: one JSON object with all samples."""
import json, sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families

answer = urllib.request.urlopen(sys.argv[1])
assert answer.headers["Content-Type"].startswith("text/plain"), answer.headers["Content-Type"]
samples = {}
for family in text_string_to_metric_families(answer.read().decode()):
    for sample in family.samples:
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        samples[f"{sample.name}{{{labels}}}"] = sample.value
print(json.dumps(samples))
