"""The demo over HTTP, in the shape of OpenAI's API."""

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nat_dpo_pipeline.demo import replies
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.replies import Choice
from nat_dpo_pipeline.demo.requests import ChatRequest, answered_of, parse, prompt_of
from nat_dpo_pipeline.demo.reward import score
from nat_dpo_pipeline.demo.writer import write
from nat_dpo_pipeline.errors import InputError

_WRITER = "demo/stdlib-writer"
_REWARD = "demo/stdlib-reward"
_SPEAKERS: Mapping[str, str] = {
    _WRITER: "stdlib-docs-writer (demo: Python docstrings, not a language model)",
    _REWARD: "stdlib-docs-reward (demo: word overlap with Python docstrings, not a language model)",
}


def build(seed: int) -> Starlette:
    """The app; its replies depend on the seed and the requests only."""
    routes = [
        Route("/v1/chat/completions", _complete, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.state.seed = seed
    return app


async def _complete(request: Request) -> Response:
    try:
        chat = parse(await request.body())
        if chat.model not in _SPEAKERS:
            return _unknown(chat.model)
        choices = _reply(chat, request.app.state.seed)
    except InputError as error:
        return _json(replies.error(str(error)), 400)
    return _json(replies.completion(chat, _SPEAKERS[chat.model], choices))


async def _models(_: Request) -> Response:
    return _json(replies.model_list(list(_SPEAKERS)))


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json(replies.error(f"{request.method} {request.url.path} is not served by the demo model"), status)


def _reply(chat: ChatRequest, seed: int) -> list[Choice]:
    chances = [Chance(seed, chat.seed, place) for place in range(chat.choices)]
    if chat.model == _REWARD:
        return [replies.scored(score(*answered_of(chat.messages)))] * len(chances)
    prompt = prompt_of(chat.messages)
    return [replies.limited(Choice(write(prompt, chance)), chat.max_tokens) for chance in chances]


def _unknown(model: str) -> Response:
    message = f"the model {model[:100]!r} does not exist; there are {', '.join(_SPEAKERS)}"
    return _json(replies.error(message, code="model_not_found"), 404)


def _json(body: Mapping[str, object], status: int = 200) -> Response:
    return Response(replies.encoded(body), status, media_type="application/json")
