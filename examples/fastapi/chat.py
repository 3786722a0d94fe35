"""A chat endpoint: what a call of the model may spend is reserved before it, and what it has used is settled after."""
import json
import os

import anyio
import httpx
from fastapi import Body, FastAPI, Header, Response
from fastapi.responses import StreamingResponse

app, http = FastAPI(), httpx.AsyncClient(timeout=60)
ration = os.environ["RATION_URL"] + "/ration.v1.AccountingService/"

@app.post("/api/chat")  # x-user is whom your login knows
async def chat(model: str = Body(), messages: list = Body(), max_tokens: int = Body(500), x_user: str = Header()):
    caller = {"domain": "llm", "attributes": {"user": x_user}, "model": model}
    prompt = {"characters": len(json.dumps(messages)), "outputCaps": {"max_tokens": max_tokens}}
    answer = await http.post(ration + "Reserve", json={"caller": caller, "estimate": {"prompt": prompt}})
    decision, reservation = answer.raise_for_status().json()["decision"], answer.json().get("reservation")
    if not reservation:  # refused: hand on why, and when it fits
        return Response(decision["http"]["body"], decision["http"]["status"], decision["http"]["headers"])
    body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True},
            "max_tokens": min(max_tokens, int(decision.get("maxOutputTokens", max_tokens)))}
    async def stream(method="Release", report={"reservationId": reservation["id"]}):
        try:
            async with http.stream("POST", os.environ["MODEL_URL"], json=body) as events:
                events.raise_for_status()
                used = {"inputTokens": int(decision["estimate"]["inputTokens"]), "outputTokens": 0}
                method, report = "Settle", report | {"caller": caller, "usage": used}
                async for line in events.aiter_lines():
                    event = json.loads(line[6:]) if line.startswith("data: {") else {}
                    used["outputTokens"] += bool(event)  # about a token each, until the last one tells exactly
                    if total := event.get("usage"):
                        used["cacheReadTokens"] = total["prompt_tokens_details"]["cached_tokens"]
                        used["inputTokens"] = total["prompt_tokens"] - used["cacheReadTokens"]
                        used["outputTokens"] = total["completion_tokens"]
                    yield line + "\n"
        finally:
            with anyio.CancelScope(shield=True):  # also when the user hangs up
                (await http.post(ration + method, json=report)).raise_for_status()
    return StreamingResponse(stream(), media_type="text/event-stream")
