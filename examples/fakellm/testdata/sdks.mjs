// Talks to fakellm by the official SDKs for TypeScript, which are installed in the directory: node sdks.mjs DIRECTORY URL.
//
// Prints, by API, the sum of the usage that they read, in the words of the ledger. The caller compares.
import { createRequire } from "node:module";

const [, , directory, url] = process.argv;
const require = createRequire(directory + "/");
const Anthropic = require("@anthropic-ai/sdk").default;
const OpenAI = require("openai").default;

const script = {
  "x-fake-input-tokens": "25",
  "x-fake-cache-read-tokens": "1000",
  "x-fake-output-tokens": "40",
  "x-fake-reasoning-tokens": "12",
  "x-fake-split": "5",
};
const messages = [{ role: "user", content: "How long is an hour?" }];
const options = { headers: script };
const claude = new Anthropic({ baseURL: url, apiKey: "typescript", maxRetries: 0 });
const gpt = new OpenAI({ baseURL: url + "/v1", apiKey: "typescript", maxRetries: 0 });
const used = {};

function count(api, prompt, cached, output, reasoning) {
  const sum = (used[api] ??= { input_tokens: 0, cache_read_tokens: 0, output_tokens: 0, reasoning_tokens: 0 });
  sum.input_tokens += prompt - cached;
  sum.cache_read_tokens += cached;
  sum.output_tokens += output;
  sum.reasoning_tokens += reasoning;
}

function check(what, got, want) {
  if (got !== want) throw new Error(`${what}: ${got}, want ${want}`);
}

async function refused(what, kind, type, call) {
  try {
    await call();
  } catch (refusal) {
    check(`${what}, instance`, refusal instanceof kind, true);
    check(`${what}, type`, (refusal.error.error ?? refusal.error).type, type);
    return;
  }
  throw new Error(`${what}: not refused`);
}

const countMessage = (u) =>
  count(
    "messages",
    u.input_tokens + u.cache_read_input_tokens,
    u.cache_read_input_tokens,
    u.output_tokens,
    u.output_tokens_details.thinking_tokens,
  );
const ask = { model: "claude", max_tokens: 100, messages };
const message = await claude.messages.create(ask, options);
countMessage(message.usage);
const stream = claude.messages.stream(ask, options);
check("text of a streamed message", await stream.finalText(), message.content.at(-1).text);
countMessage((await stream.finalMessage()).usage);

const countChat = (u) =>
  count(
    "chat",
    u.prompt_tokens,
    u.prompt_tokens_details.cached_tokens,
    u.completion_tokens,
    u.completion_tokens_details.reasoning_tokens,
  );
const completion = await gpt.chat.completions.create({ model: "gpt", messages }, options);
countChat(completion.usage);
let text = "";
for await (const chunk of await gpt.chat.completions.create(
  { model: "gpt", messages, stream: true, stream_options: { include_usage: true } },
  options,
)) {
  text += chunk.choices[0]?.delta.content ?? "";
  if (chunk.usage) countChat(chunk.usage);
}
check("text of a streamed completion", text, completion.choices[0].message.content);

const countResponse = (u) =>
  count(
    "responses",
    u.input_tokens,
    u.input_tokens_details.cached_tokens,
    u.output_tokens,
    u.output_tokens_details.reasoning_tokens,
  );
const question = { model: "gpt", input: "How long is an hour?" };
const response = await gpt.responses.create(question, options);
countResponse(response.usage);
text = "";
for await (const event of await gpt.responses.create({ ...question, stream: true }, options)) {
  if (event.type === "response.output_text.delta") text += event.delta;
  if (event.type === "response.completed") countResponse(event.response.usage);
}
check("text of a streamed response", text, response.output_text);

const limited = { headers: { "x-fake-status": "429" } };
await refused("messages", Anthropic.RateLimitError, "rate_limit_error", () => claude.messages.create(ask, limited));
await refused("chat", OpenAI.RateLimitError, "requests", () =>
  gpt.chat.completions.create({ model: "gpt", messages }, limited),
);
await refused("responses", OpenAI.RateLimitError, "requests", () => gpt.responses.create(question, limited));
console.log(JSON.stringify(used));
