import pytest
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse

from nat_dpo_pipeline.testing.messages import Request, Response, asgi_answer, body_length, encoded

HEAD = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nX-Two:  a: b \r\n\r\n"
ASKED = Request(4, HEAD, b'{"q": 1 }')


def test_a_request_is_read_from_its_bytes() -> None:
    assert (ASKED.method, ASKED.path) == ("POST", "/v1/chat/completions?a=b")
    assert ASKED.headers == {"host": "h", "content-length": "9", "x-two": "a: b"}
    assert ASKED.json == {"q": 1}


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (HEAD, 9),
        (b"GET / HTTP/1.1\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\ncontent-length:12\r\n\r\n", 12),
        (b"GET / HTTP/1.1\r\nx-content-length: 12\r\n\r\n", 0),
    ],
)
def test_the_length_of_a_body_is_the_one_stated(head: bytes, length: int) -> None:
    assert body_length(head) == length


@pytest.mark.parametrize(
    ("response", "sent"),
    [
        (
            Response(body={"a": 1}),
            b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{"a":1}',
        ),
        (
            Response(502, b"<p>", {"Content-Type": "text/html", "Content-Length": "99", "x": "y"}),
            b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 3\r\nx: y\r\n\r\n<p>",
        ),
        (Response(299), b"HTTP/1.1 299 \r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"),
    ],
)
def test_a_response_is_sent_as_http(response: Response, sent: bytes) -> None:
    assert encoded(response) == sent


async def test_an_asgi_app_sees_the_request_and_gives_the_response() -> None:
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        request = StarletteRequest(scope, receive)
        told = [request.method, request.url.path, request.url.query, request.headers["x-two"], await request.json()]
        await JSONResponse(told, 201, {"x-from": "app"})(scope, receive, send)

    response = await asgi_answer(app)(ASKED)  # type: ignore[misc]
    assert response.status == 201
    assert response.body == b'["POST","/v1/chat/completions","a=b","a: b",{"q":1}]'
    assert response.headers["x-from"] == "app"
