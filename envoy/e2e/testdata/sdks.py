"""Calls models by the official SDKs for Python, as any application would, and says how the calls ended: python sdks.py URL.

An API key is the name of a case. Prints, by case, what the calls came to: for a refusal what a handler of it can read, and
for an answer its header fields about limits.
"""

import json
import sys

import anthropic
import openai

URL = sys.argv[1]
TELLING = ("ratelimit", "ration-", "retry", "x-should-retry", "request-id")
ended = {}


def case(name, call, *, retries=2, times=1):
    """Makes calls under a key of their own, until one is refused."""
    ended[name] = outcome = {"answers": 0}
    key = "python-" + name
    claude = anthropic.Anthropic(base_url=URL, api_key=key, max_retries=retries)
    gpt = openai.OpenAI(base_url=URL + "/v1", api_key=key, max_retries=retries)
    try:
        for _ in range(times):
            headers = call(claude, gpt)
            outcome["answers"] += 1
            outcome["headers"] = {k: v for k, v in headers.items() if any(word in k for word in TELLING)}
    except (anthropic.APIStatusError, openai.APIStatusError) as refusal:
        of_anthropic = isinstance(refusal, anthropic.APIStatusError)
        outcome["refusal"] = {
            "class": type(refusal).__name__,
            "status": refusal.status_code,
            "type": refusal.type,
            "code": refusal.error_code if of_anthropic else refusal.code,
            "message": refusal.api_message if of_anthropic else refusal.body["message"],
            "text": str(refusal),
            "request": refusal.request_id,
            "retry": refusal.response.headers.get("x-should-retry"),
        }


HELLO = [{"role": "user", "content": "Hello"}]


def message(most=100, model="claude-haiku-4-5", headers=None):
    def call(claude, _):
        answer = claude.messages.with_raw_response.create(
            model=model, max_tokens=most, messages=HELLO, extra_headers=headers
        )
        assert answer.parse().usage.output_tokens > 0
        return answer.headers

    return call


def message_stream(most=100):
    def call(claude, _):
        with claude.messages.stream(model="claude-haiku-4-5", max_tokens=most, messages=HELLO) as stream:
            assert stream.get_final_text()
            return stream.response.headers

    return call


def chat(most=100, model="gpt-5-mini", headers=None):
    def call(_, gpt):
        answer = gpt.chat.completions.with_raw_response.create(
            model=model, max_completion_tokens=most, messages=HELLO, extra_headers=headers
        )
        assert answer.parse().usage.completion_tokens > 0
        return answer.headers

    return call


def chat_stream(most=100):
    def call(_, gpt):
        stream = gpt.chat.completions.create(
            model="gpt-5-mini", max_completion_tokens=most, messages=HELLO, stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        return stream.response.headers

    return call


def response(most=100, model="gpt-5-mini", headers=None):
    def call(_, gpt):
        answer = gpt.responses.with_raw_response.create(
            model=model, max_output_tokens=most, input="Hello", extra_headers=headers
        )
        assert answer.parse().usage.output_tokens > 0
        return answer.headers

    return call


def response_stream(most=100):
    def call(_, gpt):
        stream = gpt.responses.create(model="gpt-5-mini", max_output_tokens=most, input="Hello", stream=True)
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        return stream.response.headers

    return call


for api, call, stream in [
    ("messages", message, message_stream),
    ("chat", chat, chat_stream),
    ("responses", response, response_stream),
]:
    # Of those that wait, one retry has to do: who comes too early is refused again.
    case(api + "-throttled", call(), retries=1, times=3)
    case(api + "-stream-throttled", stream(), retries=1, times=3)
    case(api + "-exhausted", call())
    case(api + "-stream-exhausted", stream())
    case(api + "-large", call(most=6_000))
    case(api + "-stream-large", stream(most=6_000))
    case(api + "-unpriced", call(model="mystery"))
    case(api + "-warned", call())
    case(api + "-busy", call(headers={"x-fake-status": "429", "x-fake-retry-after": "3s"}), retries=1)

print(json.dumps(ended))
