"""Run by `make wheel` where only the wheel is installed: the core needs nothing but the standard library."""

import importlib.util
import sys

import nat_dpo_pipeline.core

for framework in ("nat", "pydantic", "openai"):
    if importlib.util.find_spec(framework) is not None:
        sys.exit(f"this environment is not bare: {framework} is installed, so the check proves nothing")

print(f"core imports without any dependency, from {nat_dpo_pipeline.core.__name__}")
