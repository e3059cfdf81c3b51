"""Evaluates a ValidatingAdmissionPolicy's CEL validations for pods, as the API server does.

Standard input: {"policy": the policy, "pods": [pods]}; standard output: for each pod one JSON list of the messages
of the validations that do not hold. One that cannot be evaluated does not hold: its failurePolicy is Fail.
"""

import json
import sys

from cel_expr_python import cel

asked = json.load(sys.stdin)
spec = asked["policy"]["spec"]
assert spec["failurePolicy"] == "Fail"
env = cel.NewEnv(variables={"object": cel.Type.DYN})
validations = [(env.compile(it["expression"]), it["message"]) for it in spec["validations"]]
for pod in asked["pods"]:
    results = [(rule.eval(data={"object": pod}), message) for rule, message in validations]
    print(json.dumps([message for result, message in results if result.value() is not True]))
