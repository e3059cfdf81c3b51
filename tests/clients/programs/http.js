// Each client sends one request over its newest protocol and prints the status.
const https = require("node:https"), http2 = require("node:http2"), undici = require("undici");

const url = process.argv[1] + "/echo";
const headers = { authorization: "Bearer " + process.env.API_KEY };

const withHttps = () => new Promise((resolve, reject) => {
  https.get(url, { headers }, (answer) => answer.resume().on("end", () => resolve(answer.statusCode))).on("error", reject);
});
const withHttp2 = () => new Promise((resolve, reject) => {
  const session = http2.connect(url).on("error", reject);
  const request = session.request({ ":path": "/echo", ...headers });
  let status;
  request.on("response", (head) => { status = head[":status"]; });
  request.on("error", reject).resume().on("end", () => { session.close(); resolve(status); });
});

(async () => {
  console.log("fetch", (await fetch(url, { headers })).status);
  console.log("https", await withHttps());
  console.log("http2", await withHttp2());
  const answer = await undici.request(url, { headers, dispatcher: new undici.Agent({ allowH2: true }) });
  console.log("undici", answer.statusCode, (await answer.body.json()).version);
  process.exit(0);
})();
