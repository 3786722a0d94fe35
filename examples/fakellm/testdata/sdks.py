"""Talks to fakellm by the official SDKs for Python, as any application would: python sdks.py URL.

Prints, by API, the sum of the usage that the SDKs read, in the words of the ledger. The caller compares.
"""

import json
import sys
from collections import Counter

import anthropic
import openai

URL = sys.argv[1]
SCRIPT = {
    "x-fake-input-tokens": "25",
    "x-fake-cache-read-tokens": "1000",
    "x-fake-cache-write-tokens": "300",
    "x-fake-output-tokens": "40",
    "x-fake-reasoning-tokens": "12",
    "x-fake-split": "5",
}
CAPPED = {"x-fake-output-tokens": "40"}
MESSAGES = [{"role": "user", "content": "How long is an hour?"}]

# Without retries: what is refused is seen.
claude = anthropic.Anthropic(base_url=URL, api_key="python", max_retries=0)
gpt = openai.OpenAI(base_url=URL + "/v1", api_key="python", max_retries=0)
used = {"messages": Counter(), "chat": Counter(), "responses": Counter()}


def check(what, got, want):
    if got != want:
        sys.exit(f"{what}: {got!r}, want {want!r}")


def count_anthropic(usage):
    details = usage.output_tokens_details
    used["messages"].update(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_creation_input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=details.thinking_tokens if details else 0,
    )


def count_openai(api, prompt, cached, written, output, reasoning):
    used[api].update(
        input_tokens=prompt - cached - written,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=reasoning,
    )


def count_chat(usage):
    count_openai(
        "chat",
        usage.prompt_tokens,
        usage.prompt_tokens_details.cached_tokens,
        usage.prompt_tokens_details.cache_write_tokens,
        usage.completion_tokens,
        usage.completion_tokens_details.reasoning_tokens,
    )
    check("total of chat", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def count_responses(usage):
    count_openai(
        "responses",
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.input_tokens_details.cache_write_tokens,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens,
    )


def messages():
    ask = {"model": "claude", "max_tokens": 100, "messages": MESSAGES}
    whole = claude.messages.create(**ask, extra_headers=SCRIPT)
    count_anthropic(whole.usage)
    check("end of a message", whole.stop_reason, "end_turn")
    with claude.messages.stream(**ask, extra_headers=SCRIPT) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    count_anthropic(streamed.usage)
    check("text of a streamed message", text, whole.content[-1].text)
    check("blocks of a streamed message", [b.type for b in streamed.content], ["thinking", "text"])

    capped = claude.messages.create(**(ask | {"max_tokens": 7}), extra_headers=CAPPED)
    count_anthropic(capped.usage)
    check("end of a capped message", (capped.stop_reason, capped.usage.output_tokens), ("max_tokens", 7))

    counted = claude.messages.count_tokens(model="claude", messages=MESSAGES)
    check("tokens of a prompt", counted.input_tokens, 5)
    check("models", [m.id for m in claude.models.list()][:1], ["claude-haiku-4-5"])
    check("model", claude.models.retrieve("claude-haiku-4-5").lifecycle, "active")


def chat():
    ask = {"model": "gpt", "messages": MESSAGES}
    whole = gpt.chat.completions.create(**ask, extra_headers=SCRIPT)
    count_chat(whole.usage)
    check("end of a completion", whole.choices[0].finish_reason, "stop")
    text, usage = "", None
    for chunk in gpt.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}, extra_headers=SCRIPT
    ):
        check("usage but in the last chunk", usage, None)
        usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    count_chat(usage)
    check("text of a streamed completion", text, whole.choices[0].message.content)

    capped = gpt.chat.completions.create(**ask, max_completion_tokens=7, n=2, extra_headers=CAPPED)
    count_chat(capped.usage)
    check("ends of capped choices", [c.finish_reason for c in capped.choices], ["length", "length"])
    check("output of capped choices", capped.usage.completion_tokens, 14)
    check("models", [m.id for m in gpt.models.list()][-1:], ["gpt-5-nano"])


def responses():
    ask = {"model": "gpt", "input": "How long is an hour?"}
    whole = gpt.responses.create(**ask, extra_headers=SCRIPT)
    count_responses(whole.usage)
    check("end of a response", whole.status, "completed")
    with gpt.responses.stream(**ask, extra_headers=SCRIPT) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        streamed = stream.get_final_response()
    count_responses(streamed.usage)
    check("text of a streamed response", text, whole.output_text)

    capped = gpt.responses.create(**ask, max_output_tokens=7, extra_headers=CAPPED)
    count_responses(capped.usage)
    why = (capped.status, capped.incomplete_details.reason)
    check("end of a capped response", why, ("incomplete", "max_output_tokens"))


def refused(what, sdk, kind, call, **want):
    """Checks that a call is refused by an exception of a kind, whose body has the wanted fields."""
    try:
        call()
    except kind as refusal:
        body = refusal.body["error"] if sdk is anthropic else refusal.body
        check(what, {name: body[name] for name in want}, want)
        return refusal
    sys.exit(f"{what}: no {kind.__name__}")


def errors():
    limited = {"x-fake-status": "429", "x-fake-retry-after": "3s"}
    quota = {"x-fake-status": "429", "x-fake-error": "insufficient_quota"}
    overloaded = {"x-fake-status": "529"}
    broken = {"x-fake-error-after": "2"}

    def message(headers, **more):
        return claude.messages.create(model="m", max_tokens=5, messages=MESSAGES, extra_headers=headers, **more)

    refusal = refused("a message, limited", anthropic, anthropic.RateLimitError, lambda: message(limited), type="rate_limit_error")
    check("a message, when to come again", refusal.response.headers["retry-after"], "3")
    check("a message, id of the request", refusal.request_id[:4], "req_")
    for what, kind, call in [
        ("a message, overloaded", anthropic.InternalServerError, lambda: message(overloaded)),
        ("a message, broken off", anthropic.APIStatusError, lambda: list(message(broken, stream=True))),
    ]:
        refused(what, anthropic, kind, call, type="overloaded_error")

    def completion(headers):
        return gpt.chat.completions.create(model="m", messages=MESSAGES, extra_headers=headers)

    def response(headers):
        return gpt.responses.create(model="m", input="x", extra_headers=headers)

    for what, call in {"a completion": completion, "a response": response}.items():
        refusal = refused(what + ", limited", openai, openai.RateLimitError, lambda: call(limited), code="rate_limit_exceeded")
        check(what + ", when to come again", refusal.response.headers["retry-after-ms"], "3000")
        refused(what + ", out of quota", openai, openai.RateLimitError, lambda: call(quota), code="insufficient_quota")
        keyless = {"authorization": "none"}
        refused(what + ", no key", openai, openai.AuthenticationError, lambda: call(keyless), code="invalid_api_key")


messages()
chat()
responses()
errors()

# By the limits of the service itself, and with the SDKs' own retries: the second of two calls waits as it is told, and
# is served. The key is another, so that the calls above took nothing of it.
claude = anthropic.Anthropic(base_url=URL, api_key="patient", max_retries=1)
gpt = openai.OpenAI(base_url=URL + "/v1", api_key="patient", max_retries=1)
large = {"x-fake-input-tokens": "60000"}
for _ in range(2):
    claude.messages.create(model="m", max_tokens=5, messages=MESSAGES, extra_headers=large)
for _ in range(2):
    gpt.responses.create(model="m", input="x", extra_headers=large)
print(json.dumps(used))
