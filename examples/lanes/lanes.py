"""Calls a model for users of three tiers, all at once, through a lane that lets five calls through in a second, and prints
who has waited for how long.

Class Ration and ask() are what an application does for each call; the rest is the burst and the table. main.go is the same
in Go.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

# An application has these two generated once, by `python -m grpc_tools.protoc`. Here it is done at every start.
sys.path.append(str(Path(__file__).parents[2] / "proto"))
api, services = grpc.protos_and_services("ration/v1/accounting.proto")

RATION_SERVER = os.environ.get("RATION_SERVER", "localhost:8081")
MODEL_URL = os.environ.get("MODEL_URL", "http://localhost:8090/v1/chat/completions")
MODEL, MAX_TOKENS = "gpt-5-mini", 200

# What gets lost is sent again: a call with its key, and the end of a call, count once however often they are sent.
REPEATS = {"methodConfig": [{
    "name": [{"service": "ration.v1.AccountingService"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]},
}]}


class Refused(Exception):
    """The call may not be made. The text is for the user; decision.http is what to answer over HTTP."""

    def __init__(self, decision: "api.Decision"):
        super().__init__(decision.message)
        self.decision = decision


@dataclass
class Lease:
    """What an admitted call holds. usage is what it has used in the end; None: it was not made."""

    id: str
    decision: "api.Decision"
    usage: "api.Usage | None" = None


class Ration:
    """Asks ration, over one channel."""

    def __init__(self, channel: grpc.aio.Channel):
        self.stub = services.AccountingServiceStub(channel)

    @contextlib.asynccontextmanager
    async def turn(self, request: "api.AcquireRequest", tell: Callable[["api.Standing"], None]) -> AsyncIterator[Lease]:
        """Runs a block when it is the call's turn, or raises Refused. Meanwhile tell is told how the call stands.

        After the block its lease.usage is charged. Where there is none, because the model has failed, or because the user
        has hung up and the task is cancelled, all that the call holds is given back.
        """
        answer = await self.acquire(request, tell)
        if not answer.HasField("reservation"):
            raise Refused(answer.decision)
        lease = Lease(answer.reservation.id, answer.decision)
        try:
            yield lease
        finally:
            if lease.usage is None:
                await self.stub.Release(api.ReleaseRequest(reservation_id=lease.id), timeout=10)
            else:
                await self.stub.Settle(
                    api.SettleRequest(reservation_id=lease.id, usage=lease.usage, caller=request.caller), timeout=10)

    async def acquire(self, request, tell):
        """Waits for the answer. If the task is cancelled, the stream ends, and by that the call leaves the line."""
        request.idempotency_key = uuid.uuid4().hex
        breaks = 0
        while True:
            try:
                async for message in self.stub.Acquire(request, timeout=60):  # more than the lane's max_wait
                    if message.HasField("answer"):
                        return message.answer
                    breaks = 0
                    tell(message.standing)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or breaks == 5:
                    raise
            # The connection has broken. With the same key the call finds its place in line, also by another replica.
            breaks += 1
            await asyncio.sleep(breaks / 2)


@dataclass(frozen=True)
class User:
    """Somebody who calls the model, and what they pay for."""

    name: str
    tier: str


async def ask(ration: Ration, model: httpx.AsyncClient, user: User, prompt: str, tell) -> tuple[str, float]:
    """Asks the model when it is the user's turn, and returns its answer, and how many seconds the user has waited."""
    request = api.AcquireRequest(
        caller=api.Caller(domain="chat", attributes={"user": user.name}, tier=user.tier, model=MODEL),
        estimate=api.Estimate(prompt=api.Prompt(characters=len(prompt), output_caps={"max_tokens": MAX_TOKENS})),
        lease={"seconds": 60},  # longer than an answer takes: if this process dies, what the call holds is free after that
        wait=api.Wait(lane="model"),
    )
    async with ration.turn(request, tell) as lease:
        decision = lease.decision
        most = decision.max_output_tokens if decision.clamped else MAX_TOKENS
        response = await model.post(MODEL_URL, json={
            "model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": most})
        answer = response.raise_for_status().json()
        used = answer["usage"]
        cached = used["prompt_tokens_details"]["cached_tokens"]  # OpenAI counts them in the prompt too, ration only once
        lease.usage = api.Usage(input_tokens=used["prompt_tokens"] - cached, cache_read_tokens=cached,
                                output_tokens=used["completion_tokens"])
    return answer["choices"][0]["message"]["content"], decision.waited.waited.ToTimedelta().total_seconds()


# Who calls at the same time, and how often: those who pay most come last.
BURST = {
    User("finn", "free"): 8,  # a batch, for which the next two do not have to wait
    User("fay", "free"): 1,
    User("flo", "free"): 1,
    User("paul", "pro"): 5,
    User("pia", "pro"): 3,
    User("pam", "pro"): 2,
    User("ann", "premium"): 4,
    User("amy", "premium"): 3,
    User("abe", "premium"): 3,
}


@dataclass
class Call:
    """What has become of a call."""

    user: User
    end: str = "failed"  # or "served" or "refused"
    waited: float = 0.0  # seconds

    async def run(self, ration: Ration, model: httpx.AsyncClient, prompt: str) -> None:
        """Makes the call, and says what becomes of it, unless it is served."""
        who = f"{self.user.name} ({self.user.tier})"

        def tell(standing):
            if standing.position == standing.waiting:  # all can hear it; one is enough to read
                to_go = standing.expected_wait.ToTimedelta().total_seconds()
                print(f"{who} is the last of {standing.waiting} in line: about {to_go:.1f} s to go")

        try:
            _, self.waited = await ask(ration, model, self.user, prompt, tell)
            self.end = "served"
        except Refused as refusal:  # a web application would answer with refusal.decision.http
            self.end = "refused"
            print(f"{who} is refused: {refusal}")
        except httpx.HTTPStatusError as error:
            print(f"{who}: the model has answered {error.response.status_code} {error.response.reason_phrase}")
        except httpx.HTTPError as error:
            print(f"{who}: the model: {error!r}")
        except grpc.aio.AioRpcError as error:
            print(f"{who}: ration: {error.code().name}: {error.details()}")


def print_table(calls: list[Call]) -> None:
    """Prints how long those who were served have waited: by user, and in the last line by tier."""

    def waits(of: Callable[[Call], bool]) -> list[float]:
        return [c.waited for c in calls if c.end == "served" and of(c)]

    print(f"\n{'tier':8} {'user':5} {'calls':>6} {'served':>7} {'first wait':>11} {'median':>8} {'longest':>8}")
    for user, n in BURST.items():
        own = waits(lambda c: c.user == user)
        row = f"{user.tier:8} {user.name:5} {n:6} {len(own):7}"
        if own:
            row += f" {min(own):9.1f} s {statistics.median_low(own):6.1f} s {max(own):6.1f} s"
        print(row)
    longest = []
    for tier in ("premium", "pro", "free"):
        if own := waits(lambda c: c.user.tier == tier):
            longest.append(f"{tier} {max(own):.1f} s")
    served = f"{len(waits(lambda _: True))} of {len(calls)} calls were served."
    print(f"\n{served} The longest wait: {', '.join(longest)}." if longest else f"\n{served}")


async def main() -> int:
    """Makes all calls at once, prints the table, and returns how many have failed."""
    options = [("grpc.service_config", json.dumps(REPEATS))]
    async with (grpc.aio.insecure_channel(RATION_SERVER, options=options) as channel,
                httpx.AsyncClient(headers={"authorization": "Bearer any-key"}, timeout=30) as model,
                asyncio.TaskGroup() as tasks):
        ration, calls = Ration(channel), []
        for user, n in BURST.items():
            for number in range(1, n + 1):
                calls.append(call := Call(user))
                tasks.create_task(call.run(ration, model, f"Tell me story {number}."))
    print_table(calls)
    return sum(c.end == "failed" for c in calls)


if __name__ == "__main__":
    try:
        failed = asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit("lanes: interrupted: who waited has left the line, and what was held is given back")
    sys.exit(f"lanes: {failed} calls have failed" if failed else None)
