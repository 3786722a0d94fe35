// POST /api/chat: what a call of the model may spend is reserved before it, and what it has used is settled after.

async function ration(method, request) {
  const answer = await fetch(`${process.env.RATION_URL}/ration.v1.AccountingService/${method}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request),
  });
  if (!answer.ok) throw new Error(`${method}: ${await answer.text()}`);
  return answer.json();
}

export async function POST(request) {
  const { model, messages, max_tokens = 500 } = await request.json();
  const user = request.headers.get("x-user"); // whom your login knows
  const caller = { domain: "llm", attributes: user ? { user } : {}, model };
  const prompt = { characters: JSON.stringify(messages).length, outputCaps: { max_tokens } };
  const { decision, reservation } = await ration("Reserve", { caller, estimate: { prompt } });
  if (!reservation) { // refused: hand on why, and when it fits
    const { status, headers, body } = decision.http;
    return new Response(body, { status, headers });
  }

  const leaving = new AbortController();
  const answer = await fetch(process.env.MODEL_URL, {
    method: "POST", signal: leaving.signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model, messages, max_tokens: Math.min(max_tokens, decision.maxOutputTokens ?? max_tokens),
      stream: true, stream_options: { include_usage: true },
    }),
  }).catch(() => Response.error());
  if (!answer.ok) {
    await ration("Release", { reservationId: reservation.id });
    return new Response("the model does not answer", { status: 502 });
  }

  async function* stream() {
    let usage = { inputTokens: decision.estimate.inputTokens, outputTokens: 0 };
    let rest = "";
    try {
      for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + piece).split("\n");
        rest = lines.pop();
        for (const line of lines.filter((line) => line.startsWith("data: {"))) {
          usage.outputTokens++; // about a token each, until the last one tells exactly
          const total = JSON.parse(line.slice(6)).usage;
          if (!total) continue;
          const cacheReadTokens = total.prompt_tokens_details.cached_tokens;
          const inputTokens = total.prompt_tokens - cacheReadTokens;
          usage = { inputTokens, cacheReadTokens, outputTokens: total.completion_tokens };
        }
        yield piece;
      }
    } finally {
      await ration("Settle", { reservationId: reservation.id, caller, usage });
    }
  }
  const pieces = stream();
  const body = new ReadableStream({
    async pull(controller) {
      const { value, done } = await pieces.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() { // the user has hung up
      leaving.abort();
      await pieces.return();
    },
  });
  return new Response(body.pipeThrough(new TextEncoderStream()), { headers: { "content-type": "text/event-stream" } });
}
