"""Each vendor's SDK, used as documented: keys and addresses come from the environment."""
import os, urllib.request

import anthropic, openai, stripe

url = os.environ["STRIPE_URL"]
hello = [{"role": "user", "content": "hello"}]


def streamed(pieces):
    """The events as one text. The server sends the second after the first was confirmed."""
    text = ""
    for piece in pieces:
        if piece and not text:
            urllib.request.urlopen(url + "/received").read()
        text += piece or ""
    return text


client = openai.OpenAI()
answer = client.chat.completions.create(model="a-model", messages=hello)
print("openai", answer.choices[0].message.content)
stream = client.chat.completions.create(model="a-model", messages=hello, stream=True)
print("openai stream", streamed(chunk.choices[0].delta.content for chunk in stream))

client = anthropic.Anthropic()
answer = client.messages.create(model="a-model", max_tokens=9, messages=hello)
print("anthropic", answer.content[0].text)
with client.messages.stream(model="a-model", max_tokens=9, messages=hello) as stream:
    print("anthropic stream", streamed(stream.text_stream))

client = stripe.StripeClient(os.environ["STRIPE_KEY"], base_addresses={"api": url})
customer = client.v1.customers.create({"email": "a@example.com"})
print("stripe", customer.id, customer.email)
