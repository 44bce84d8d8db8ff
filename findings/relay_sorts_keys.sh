#!/usr/bin/env bash
# NeMo Relay 0.10.4, its ATOF exporter, with a tool's schema and a call's arguments in the data of a mark.
#
# Guess:    what was put into a mark stands in the file as it was, as the JSON it is.
# Behaviour: the keys of every object are sorted, at every depth: {"type", "function": {"name", "parameters"}} is written as
#           {"function", "type"}, arguments {"to", "cc", "amount"} as {"amount", "cc", "to"}. Chat templates render tools and
#           arguments in the order of their keys, so what is trained from such a trace is not the text the model saw or wrote.
# Output seen: tool function,type; parameters properties,type; arguments amount,cc,to
# Exits with 0 as long as this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q 'nemo-relay==0.10.4'

cat >record.py <<'PY'
import json
import sys

import nemo_relay

parameters = {"type": "object", "properties": {"to": {"type": "string"}}}
tool = {"type": "function", "function": {"name": "pay", "parameters": parameters}}
arguments = {"to": "Ann", "cc": "Bob", "amount": 3}
config = nemo_relay.AtofExporterConfig()
config.output_directory, config.filename = ".", "events.jsonl"
exporter = nemo_relay.AtofExporter(config)
exporter.register("recorded")
with nemo_relay.scope.scope("agent", nemo_relay.ScopeType.Agent):
    nemo_relay.scope.event("mark", data={"tool": tool, "arguments": arguments})
exporter.force_flush()
exporter.deregister("recorded")
exporter.shutdown()

events = map(json.loads, open("events.jsonl", encoding="utf-8"))
data = next(event["data"] for event in events if event.get("name") == "mark")
found = [",".join(one) for one in (data["tool"], data["tool"]["function"]["parameters"], data["arguments"])]
print(f"tool {found[0]}; parameters {found[1]}; arguments {found[2]}")
sys.exit(found != ["function,type", "properties,type", "amount,cc,to"])
PY
venv/bin/python record.py
