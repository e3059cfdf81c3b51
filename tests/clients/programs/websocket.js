// Sends two messages to an echo server.
const WebSocket = require("ws");

const url = process.argv[1].replace("https", "wss") + "/";
const socket = new WebSocket(url, { headers: { authorization: "Bearer " + process.env.API_KEY } });
const messages = ["one", "two"];
socket.on("open", () => socket.send(messages.shift()));
socket.on("message", (data) => {
  console.log(String(data));
  const next = messages.shift();
  if (next) socket.send(next); else socket.close();
});
socket.on("error", (error) => { console.error(String(error)); process.exit(1); });
