"""Several samples of one question in one request: `n` of OpenAI's API, where a server honours it.

Some servers refuse `n`, some return one choice without a word, and none says so before it is asked. So it is tried
once, with the first samples that come together, while those of other questions wait for what comes of it.
"""

import asyncio
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.replies import ChatReply


@dataclass(slots=True)
class _Gathering:
    """Samples that are asked for together: each but the first waits for its reply, or to be told to ask for itself."""

    call: Call
    waiting: dict[int, "asyncio.Future[ChatReply | None]"] = field(default_factory=dict)

    def takes(self, call: Call) -> bool:
        is_new = call.sample != self.call.sample and call.sample not in self.waiting
        return is_new and replace(call, sample=self.call.sample, place=self.call.place) == self.call

    async def reply_to(self, call: Call) -> ChatReply | None:
        self.waiting[call.sample] = asyncio.get_running_loop().create_future()
        return await self.waiting[call.sample]

    def answered(self, reply: ChatReply) -> None:
        for future, other in zip(self.waiting.values(), reply.others, strict=False):
            _settle(future, other)

    def failed(self, error: ModelError) -> None:
        """Each gets an error of its own, as whoever has one writes into it; the requests are those of the first."""
        for future in self.waiting.values():
            own = copy(error)
            own.requests = 0
            if not future.done():
                future.set_exception(own)

    def leave_the_rest_alone(self) -> None:
        for future in self.waiting.values():
            _settle(future, None)


class SampledTogether:
    """A chat model whose calls that begin at the same moment, and are equal but for their sample, are one request.

    `may_be_one` says whether calls like this one may be: not with a seed, as each sample has one of its own.
    """

    def __init__(self, model: ChatModel, may_be_one: Callable[[Call], bool]) -> None:
        self._model = model
        self._may_be_one = may_be_one
        self._is_honoured: bool | None = None
        self._trial: asyncio.Event | None = None
        self._gatherings: dict[object, _Gathering] = {}

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, call: Call) -> ChatReply:
        if self._is_honoured is False or not self._may_be_one(call):
            return await self._model.complete(call)
        key = call.messages, call.run, call.sampling.temperature  # in which samples of one question may differ
        gathering = self._gatherings.get(key)
        if gathering is None:
            return await self._first(call, key)
        reply = await gathering.reply_to(call) if gathering.takes(call) else None
        return await self._model.complete(call) if reply is None else reply

    async def _first(self, call: Call, key: object) -> ChatReply:
        gathering = self._gatherings[key] = _Gathering(call)
        try:
            try:
                await asyncio.sleep(0)  # all that begins at this moment has come by then
            finally:
                del self._gatherings[key]
            if not gathering.waiting or not await self._is_to_be_asked_for():
                return await self._model.complete(call)
            return await self._one_request(gathering)
        finally:
            gathering.leave_the_rest_alone()

    async def _is_to_be_asked_for(self) -> bool:
        """Whether to send `n`. One request at a time tries it; when that one fails nothing is known as before."""
        if self._trial is not None:
            await self._trial.wait()
            return self._is_honoured is True
        return self._is_honoured is not False

    async def _one_request(self, gathering: _Gathering) -> ChatReply:
        trial = asyncio.Event()
        if self._is_honoured is None:
            self._trial = trial
        try:
            reply = await self._model.complete(replace(gathering.call, also=tuple(gathering.waiting)))
        except ModelError as error:
            gathering.failed(error)
            raise
        else:
            self._is_honoured = self._is_honoured or bool(reply.others)
        finally:
            if self._trial is trial:
                self._trial = None
            trial.set()
        gathering.answered(reply)
        return replace(reply, others=())


def _settle(future: "asyncio.Future[ChatReply | None]", reply: ChatReply | None) -> None:
    if not future.done():
        future.set_result(reply)
