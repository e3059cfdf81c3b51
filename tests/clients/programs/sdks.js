// Each vendor's SDK, used as documented: keys and addresses come from the environment.
const OpenAI = require("openai"), Anthropic = require("@anthropic-ai/sdk"), Stripe = require("stripe");

const url = process.env.STRIPE_URL, { hostname, port } = new URL(url);
const messages = [{ role: "user", content: "hello" }], model = "a-model";

// The events as one text. The server sends the second after the first was confirmed.
const streamed = async (pieces, textOf) => {
  let text = "";
  for await (const piece of pieces) {
    const more = textOf(piece) ?? "";
    if (more && !text) await fetch(url + "/received");
    text += more;
  }
  return text;
};

(async () => {
  const openai = new OpenAI();
  const answer = await openai.chat.completions.create({ model, messages });
  console.log("openai", answer.choices[0].message.content);
  const chunks = await openai.chat.completions.create({ model, messages, stream: true });
  console.log("openai stream", await streamed(chunks, (chunk) => chunk.choices[0].delta.content));

  const anthropic = new Anthropic();
  const message = await anthropic.messages.create({ model, messages, max_tokens: 9 });
  console.log("anthropic", message.content[0].text);
  const events = anthropic.messages.stream({ model, messages, max_tokens: 9 });
  console.log("anthropic stream", await streamed(events, (event) => event.delta?.text));

  const stripe = new Stripe(process.env.STRIPE_KEY, { host: hostname, port, protocol: "https" });
  const customer = await stripe.customers.create({ email: "a@example.com" });
  console.log("stripe", customer.id, customer.email);
})();
