"""Posts JSON, a form and a file with requests, each with a placeholder where a credential belongs."""
import sys

import requests

url = sys.argv[1]


def say(what, answer):
    assert "AS_SECRET" not in answer.json()["body"] or what == "files", answer.text
    print(what, answer.status_code)


body = {"model": "x", "auth": [{"key": "AS_SECRET_ODD"}], "n": 1.5, "t": "é\n"}
say("json", requests.post(url, json=body))
say("form", requests.post(url, data={"user": "a b", "password": "{{ODD}}"}))
files = {"file": ("notes.txt", "The file quotes AS_SECRET_API_KEY.")}
say("files", requests.post(url, data={"token": "AS_SECRET_API_KEY"}, files=files))
with requests.Session() as session:
    say("session", session.post(url, json={"key": "AS_SECRET_API_KEY"}))
