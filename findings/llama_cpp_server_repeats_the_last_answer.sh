#!/usr/bin/env bash
# llama.cpp's HTTP server, as xllamacpp 2026.10.11549 embeds it, asked for a chat completion of a conversation that ends with the
# assistant: how reward models behind chat completions are asked for the score of an answer.
#
# Guess:    `content` of the reply is what the model generated.
# Behaviour: the server continues the last message, and `content` begins with a copy of it: asked to go on after "42" it answers
#           "42" + what was generated, with status 200 and nothing that tells the copy from the rest. A client that reads a
#           reward out of the content reads the answer's own number. `completion_tokens` counts the generated tokens alone.
# Neighbour: two assistant messages at the end are refused with 400, and `n: 3` is too.
# Output seen: content begins with the last answer: True; tokens: 8 of 8; two answers: 400; n=3: 400
# Exits with 0 as long as this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q xllamacpp==2026.10.11549 gguf==0.19.0 numpy

cat >model.py <<'PY'
"""A llama with random weights and a token per byte, as a GGUF file."""
import numpy
from gguf import GGUFWriter, TokenType

DIM, INNER, LAYERS, HEADS = 32, 64, 2, 2
plain = {*range(33, 127), *range(161, 173), *range(174, 256)}  # GPT-2's alphabet of bytes
others = iter(range(256, 512))
tokens = ["<s>", "</s>", *(chr(byte if byte in plain else next(others)) for byte in range(256)), "ab"]
random = numpy.random.default_rng(0)
file = GGUFWriter("model.gguf", "llama")
file.add_context_length(256)
file.add_embedding_length(DIM)
file.add_block_count(LAYERS)
file.add_feed_forward_length(INNER)
file.add_head_count(HEADS)
file.add_head_count_kv(HEADS)
file.add_layer_norm_rms_eps(1e-5)
file.add_rope_dimension_count(DIM // HEADS)
file.add_vocab_size(len(tokens))
file.add_tokenizer_model("gpt2")
file.add_tokenizer_pre("default")
file.add_token_list(tokens)
file.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(tokens) - 2))
file.add_token_merges(["a b"])
file.add_bos_token_id(0)
file.add_eos_token_id(1)
file.add_add_bos_token(False)
file.add_chat_template(
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def weights(name, *shape):
    file.add_tensor(name, (random.standard_normal(shape) * 0.1).astype(numpy.float32))


weights("token_embd.weight", len(tokens), DIM)
weights("output.weight", len(tokens), DIM)
file.add_tensor("output_norm.weight", numpy.ones(DIM, numpy.float32))
for layer in range(LAYERS):
    for norm in ("attn_norm", "ffn_norm"):
        file.add_tensor(f"blk.{layer}.{norm}.weight", numpy.ones(DIM, numpy.float32))
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights(f"blk.{layer}.{part}.weight", DIM, DIM)
    weights(f"blk.{layer}.ffn_gate.weight", INNER, DIM)
    weights(f"blk.{layer}.ffn_up.weight", INNER, DIM)
    weights(f"blk.{layer}.ffn_down.weight", DIM, INNER)
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()
PY
venv/bin/python model.py

cat >ask.py <<'PY'
import json
import sys
import urllib.error
import urllib.request

import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = "model.gguf", 256, 1, False
server = xllamacpp.Server(parameters)


def ask(*answers, **more):
    messages = [{"role": "user", "content": "What is 6 times 7?"}, *({"role": "assistant", "content": text} for text in answers)]
    body = json.dumps({"messages": messages, "max_tokens": 8, "seed": 1, **more}).encode()
    request = urllib.request.Request(server.listening_address + "/v1/chat/completions", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


_, reply = ask("42")
content, tokens = reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]
repeats = content.startswith("42") and len(content) > 2
two, _ = ask("42", "43")
several, _ = ask(n=3)
print(f"content begins with the last answer: {repeats}; tokens: {tokens} of 8; two answers: {two}; n=3: {several}")
sys.exit((repeats, two, several) != (True, 400, 400))
PY
venv/bin/python ask.py 2>server.log
