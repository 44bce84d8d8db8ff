#!/usr/bin/env bash
# LiteLLM's proxy, 1.108.7 (seen likewise with 1.110.2), in front of an OpenAI-compatible server that limits its rate.
#
# Guess:    a 429 of the upstream with `Retry-After: 7` reaches the client with `Retry-After: 7`.
# Behaviour: the proxy answers 429 WITHOUT Retry-After; the value stands in `llm_provider-retry-after` only. The error's
#           type is `throttling_error` instead of the upstream's, its code the text "429" instead of `rate_limit_exceeded`.
#           So a client that obeys Retry-After (openai's own among them) does not wait as long as the upstream asked.
# Neighbour: a model that is not configured is a 400 (`invalid_request_error`, code "400"), where OpenAI has a 404.
# Output seen: 429 retry-after=None llm_provider-retry-after=7 type=throttling_error code=429; unknown model: 400
# Exits with 0 as long as this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q 'litellm[proxy]==1.108.7'

cat >upstream.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Limited(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
        body = json.dumps({"error": error}).encode()
        self.send_response(429)
        for name, value in (("content-type", "application/json"), ("retry-after", "7"), ("content-length", len(body))):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Limited)
print(server.server_port, flush=True)
server.serve_forever()
PY
mkfifo port
venv/bin/python upstream.py >port 2>upstream.log &
read -r upstream <port

cat >config.yml <<YML
model_list:
  - model_name: limited
    litellm_params: {model: openai/m, api_base: "http://127.0.0.1:$upstream/v1", api_key: sk-upstream, max_retries: 0}
router_settings: {num_retries: 0}
YML
proxy=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export LITELLM_MASTER_KEY=sk-0123456789abcdef0123456789abcdef LITELLM_LOCAL_MODEL_COST_MAP=True
venv/bin/litellm --config config.yml --host 127.0.0.1 --port "$proxy" >proxy.log 2>&1 &

cat >ask.py <<'PY'
import json
import os
import sys
import time
import urllib.error
import urllib.request

base, proxy = sys.argv[1], int(sys.argv[2])


def ask(path, body=None):
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ['LITELLM_MASTER_KEY']}"}
    request = urllib.request.Request(base + path, body and json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


while True:  # until the proxy listens, as long as it lives
    os.kill(proxy, 0)
    try:
        ask("/health/liveliness")
        break
    except urllib.error.URLError:
        time.sleep(0.2)
question = [{"role": "user", "content": "Hello"}]
status, headers, body = ask("/v1/chat/completions", {"model": "limited", "messages": question})
error = json.loads(body)["error"]
after, hidden = headers["retry-after"], headers["llm_provider-retry-after"]
unknown, _, _ = ask("/v1/chat/completions", {"model": "of-nobody", "messages": question})
print(f"{status} retry-after={after} llm_provider-retry-after={hidden} type={error['type']} code={error['code']}; unknown model: {unknown}")
expected = (429, None, "7", "throttling_error", "429", 400)
sys.exit((status, after, hidden, error["type"], str(error["code"]), unknown) != expected)
PY
venv/bin/python ask.py "http://127.0.0.1:$proxy" $!
