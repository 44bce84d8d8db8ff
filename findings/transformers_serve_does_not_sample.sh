#!/usr/bin/env bash
# `transformers serve`, transformers 5.24.0 with torch 2.13.0 on a CPU, as a server of chat completions.
#
# Guess:    `temperature: 1.5` with different seeds gives different replies, `n: 3` three choices or an error.
# Behaviour: replies are greedy, whatever temperature and seed say, unless the generation_config.json of the model itself has
#           `do_sample: true`; and `n: 3` gives ONE choice, with status 200 and no word. A parameter that it does not know
#           (`top_k`) is refused with 422, so silence does not mean that a parameter is unknown.
#           Who samples several answers a prompt from it gets copies of one answer.
# Output seen: as saved: 1 choice for n=3, 1 text for 4 seeds; with do_sample: 4 texts for 4 seeds; top_k: 422
# Exits with 0 as long as this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q torch==2.13.0
venv/bin/python -m pip install -q torch==2.13.0 transformers==5.24.0 accelerate fastapi uvicorn openai rich

cat >model.py <<'PY'
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

text = Tokenizer(models.BPE())
text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
text.train_from_iterator(["a b"], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=1, **sizes)
model = LlamaForCausalLM(config)
for folder, samples in (("greedy", False), ("samples", True)):
    if samples:
        model.generation_config.do_sample = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
PY
venv/bin/python model.py >model.log 2>&1

cat >ask.py <<'PY'
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import socket


def answers(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["venv/bin/transformers", "serve", "--host", "127.0.0.1", "--port", str(port), os.path.abspath(folder)]
    with open(f"{folder}.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        while True:  # until it listens, as long as it lives
            assert server.poll() is None, open(f"{folder}.log").read()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except urllib.error.URLError:
                time.sleep(0.5)

        def ask(**more):
            question = [{"role": "user", "content": "Hello"}]
            body = {"model": os.path.abspath(folder), "messages": question, "max_tokens": 12, "temperature": 1.5, **more}
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request) as response:
                    return [choice["message"]["content"] for choice in json.load(response)["choices"]]
            except urllib.error.HTTPError as error:
                return error.code

        return len(ask(n=3)), len({ask(seed=seed)[0] for seed in range(4)}), ask(top_k=5)
    finally:
        server.terminate()
        server.wait()


choices, greedy, refused = answers("greedy")
_, sampled, _ = answers("samples")
print(f"as saved: {choices} choice for n=3, {greedy} text for 4 seeds; with do_sample: {sampled} texts for 4 seeds; top_k: {refused}")
sys.exit((choices, greedy, sampled, refused) != (1, 1, 4, 422))
PY
venv/bin/python ask.py
