// Calls models by the official SDKs for TypeScript, which are installed in the directory, as any application would, and
// says how the calls ended: node sdks.mjs DIRECTORY URL.
//
// An API key is the name of a case. Prints, by case, what the calls came to: for a refusal what a handler of it can read,
// and for an answer its header fields about limits.
import assert from "node:assert";
import { createRequire } from "node:module";

const [, , directory, url] = process.argv;
const require = createRequire(directory + "/");
const Anthropic = require("@anthropic-ai/sdk").default;
const OpenAI = require("openai").default;

const telling = ["ratelimit", "ration-", "retry", "x-should-retry", "request-id"];
const ended = {};

// Makes calls under a key of their own, until one is refused.
async function run(name, call, { retries = 2, times = 1 } = {}) {
  const outcome = (ended[name] = { answers: 0 });
  const apiKey = "typescript-" + name;
  const claude = new Anthropic({ baseURL: url, apiKey, maxRetries: retries });
  const gpt = new OpenAI({ baseURL: url + "/v1", apiKey, maxRetries: retries });
  try {
    for (let i = 0; i < times; i++) {
      const headers = await call(claude, gpt);
      outcome.answers++;
      const told = [...headers].filter(([field]) => telling.some((word) => field.includes(word)));
      outcome.headers = Object.fromEntries(told);
    }
  } catch (refusal) {
    const ofAnthropic = refusal instanceof Anthropic.APIError;
    if (!ofAnthropic && !(refusal instanceof OpenAI.APIError)) throw refusal;
    outcome.refusal = {
      class: refusal.constructor.name,
      status: refusal.status,
      type: refusal.type,
      code: ofAnthropic ? refusal.errorCode : refusal.code,
      message: ofAnthropic ? refusal.apiMessage : refusal.error.message,
      text: refusal.message,
      request: refusal.requestID,
      retry: refusal.headers.get("x-should-retry"),
    };
  }
}

const hello = [{ role: "user", content: "Hello" }];

const message = ({ most = 100, model = "claude-haiku-4-5", headers } = {}) => async (claude) => {
  const ask = claude.messages.create({ model, max_tokens: most, messages: hello }, { headers });
  const { data, response } = await ask.withResponse();
  assert(data.usage.output_tokens > 0);
  return response.headers;
};

const messageStream = ({ most = 100 } = {}) => async (claude) => {
  const stream = claude.messages.stream({ model: "claude-haiku-4-5", max_tokens: most, messages: hello });
  assert(await stream.finalText());
  return stream.response.headers;
};

const chat = ({ most = 100, model = "gpt-5-mini", headers } = {}) => async (_, gpt) => {
  const ask = gpt.chat.completions.create({ model, max_completion_tokens: most, messages: hello }, { headers });
  const { data, response } = await ask.withResponse();
  assert(data.usage.completion_tokens > 0);
  return response.headers;
};

const chatStream = ({ most = 100 } = {}) => async (_, gpt) => {
  const { data, response } = await gpt.chat.completions
    .create({ model: "gpt-5-mini", max_completion_tokens: most, messages: hello, stream: true })
    .withResponse();
  let text = "";
  for await (const chunk of data) text += chunk.choices[0]?.delta.content ?? "";
  assert(text);
  return response.headers;
};

const response = ({ most = 100, model = "gpt-5-mini", headers } = {}) => async (_, gpt) => {
  const ask = gpt.responses.create({ model, max_output_tokens: most, input: "Hello" }, { headers });
  const { data, response } = await ask.withResponse();
  assert(data.usage.output_tokens > 0);
  return response.headers;
};

const responseStream = ({ most = 100 } = {}) => async (_, gpt) => {
  const { data, response } = await gpt.responses
    .create({ model: "gpt-5-mini", max_output_tokens: most, input: "Hello", stream: true })
    .withResponse();
  let text = "";
  for await (const event of data) if (event.type === "response.output_text.delta") text += event.delta;
  assert(text);
  return response.headers;
};

for (const [api, call, stream] of [
  ["messages", message, messageStream],
  ["chat", chat, chatStream],
  ["responses", response, responseStream],
]) {
  // Of those that wait, one retry has to do: who comes too early is refused again.
  await run(api + "-throttled", call(), { retries: 1, times: 3 });
  await run(api + "-stream-throttled", stream(), { retries: 1, times: 3 });
  await run(api + "-exhausted", call());
  await run(api + "-stream-exhausted", stream());
  await run(api + "-large", call({ most: 6_000 }));
  await run(api + "-stream-large", stream({ most: 6_000 }));
  await run(api + "-unpriced", call({ model: "mystery" }));
  await run(api + "-warned", call());
  await run(api + "-busy", call({ headers: { "x-fake-status": "429", "x-fake-retry-after": "3s" } }), { retries: 1 });
}
console.log(JSON.stringify(ended));
