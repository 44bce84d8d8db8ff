"""Formats of chat messages, one row a pair."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from nat_dpo_pipeline.core.messages import (
    Message,
    Prompt,
    as_messages,
    calls_tools,
    message_of,
    messages_of,
    tools_of,
    tools_text,
)
from nat_dpo_pipeline.dataset.formats.format import (
    MESSAGE,
    MESSAGES,
    Column,
    Format,
    Once,
    Row,
    RowRefusal,
    as_answer,
    as_text,
    each_pair,
    plain,
    roles_problem,
)
from nat_dpo_pipeline.dataset.formats.rows import PreferenceRow, SplitName

_IDS: Mapping[str, Column] = {"example_id": "string", "turn_id": "string"}
_TRAINING = {SplitName.TRAIN: "training.jsonl", SplitName.VALIDATION: "validation.jsonl"}


def _answer(text: str) -> Mapping[str, str]:
    return {"role": "assistant", "content": text}


def trl_row(row: PreferenceRow, once: Once = plain) -> dict[str, object]:
    """Return a pair in TRL's conversational preference format, whose trainers ignore scores and ids.

    Tools are JSON text: as a list, `datasets` fills the fields of the others' schemas with null (TRL 1.16).
    """
    tools = tools_text(row.prompt)
    return {
        "prompt": once(as_messages, row.prompt),
        "chosen": once(as_answer, row.chosen),
        "rejected": once(as_answer, row.rejected),
        "chosen_score": row.chosen_score,
        "rejected_score": row.rejected_score,
        "example_id": row.example_id,
        "turn_id": row.turn_id,
        **({} if tools is None else {"tools": tools}),
    }


def openrlhf_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """OpenRLHF renders messages by the chat template, and passes no tools to it."""
    if tools_text(row.prompt) is not None:
        return RowRefusal.TOOLS_ON_OFFER
    return {
        "prompt": once(as_messages, row.prompt),
        "chosen": once(as_answer, row.chosen),
        "rejected": once(as_answer, row.rejected),
    }


def ms_swift_row(row: PreferenceRow, _once: Once = plain) -> Row:
    """ms-swift puts `rejected_response` in the place of all messages after the last one of the user."""
    messages = as_messages(row.prompt)
    last_user = max((place for place, one in enumerate(messages) if one["role"] == "user"), default=len(messages) - 1)
    since = messages[last_user + 1 :]
    rejected: object = row.rejected
    if since or calls_tools(row.rejected):
        rejected = [*since, *as_answer(row.rejected)]
    tools = tools_text(row.prompt)
    return {
        "messages": [*messages, *as_answer(row.chosen)],
        "rejected_response": rejected,
        **({} if tools is None else {"tools": tools}),
    }


def nemo_customizer_row(row: PreferenceRow, once: Once = plain) -> Row:
    """The prompt is always messages: one type a column, and nothing of it is lost."""
    return {
        "prompt": once(as_messages, row.prompt),
        "chosen_response": once(as_text, row.chosen),
        "rejected_response": once(as_text, row.rejected),
    }


def helix_row(row: PreferenceRow, once: Once = plain) -> Row:
    """The binary form: Helix takes the schema from the first line, so the prompt is always messages."""
    return {
        "prompt": once(as_messages, row.prompt),
        "chosen": once(as_text, row.chosen),
        "rejected": once(as_text, row.rejected),
    }


def helpsteer3_row(row: PreferenceRow, once: Once = plain) -> Row:
    """The chosen answer comes first or second by a hash of the texts, as a model would learn the place otherwise.

    The preference is ±2, "better" on HelpSteer3's scale: scores of a reward model do not say which strength it is.
    """
    texts = f"{row.chosen}\x1f{row.rejected}".encode()
    is_first = blake2b(texts, digest_size=1).digest()[0] % 2 == 0
    first, second = (row.chosen, row.rejected) if is_first else (row.rejected, row.chosen)
    return {
        "context": once(as_messages, row.prompt),
        "response1": once(as_text, first),
        "response2": once(as_text, second),
        "overall_preference": -2 if is_first else 2,
    }


def _spoken(messages: tuple[tuple[Message, ...], str]) -> list[Mapping[str, object]]:
    prompt, answer = messages
    return [*as_messages(prompt), _answer(answer)]


def tulu3_row(row: PreferenceRow, once: Once = plain) -> Row:
    """Both sides are whole conversations."""
    messages = messages_of(row.prompt)
    return {"chosen": once(_spoken, (messages, row.chosen)), "rejected": once(_spoken, (messages, row.rejected))}


def _ranked_first(text: str) -> Mapping[str, object]:
    return {"rank": 0, "completion": as_answer(text)}


def _ranked_second(text: str) -> Mapping[str, object]:
    return {"rank": 1, "completion": as_answer(text)}


def nemo_rl_row(row: PreferenceRow, once: Once = plain) -> Row:
    """NeMo-RL's rank format; rank 0 is the chosen one."""
    return {
        "context": once(as_messages, row.prompt),
        "completions": [once(_ranked_first, row.chosen), once(_ranked_second, row.rejected)],
    }


def _openai_input(prompt: Prompt) -> Mapping[str, object]:
    messages = [_on_the_wire(message) for message in messages_of(prompt)]
    return {"messages": messages, "tools": tools_of(prompt), "parallel_tool_calls": True}


def _on_the_wire(message: Message) -> Mapping[str, object]:
    """Return a message as OpenAI's API takes it: arguments are JSON text, thoughts have no place."""
    made = message.as_json()
    made.pop("reasoning_content", None)
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return made


def openai_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """The prompt may hold calls and their results; OpenAI takes only text as an answer."""
    if any(map(calls_tools, (row.chosen, row.rejected))):
        return RowRefusal.CALL_IN_ANSWER
    if not {message.role for message in messages_of(row.prompt)} <= _OPENAI_ROLES or _lacks_a_call(row.prompt):
        return RowRefusal.UNKNOWN_ROLE
    return {
        "input": once(_openai_input, row.prompt),
        "preferred_output": once(as_answer, row.chosen),
        "non_preferred_output": once(as_answer, row.rejected),
    }


_OPENAI_ROLES = {"system", "developer", "user", "assistant", "tool"}


def _lacks_a_call(prompt: Prompt) -> bool:
    """Return True where a result of a tool has no id of the call that it answers."""
    return any(message.role == "tool" and not message.tool_call_id for message in messages_of(prompt))


_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


def _sharegpt(prompt: Prompt) -> list[Mapping[str, str]]:
    return [_sharegpt_message(message) for message in messages_of(prompt)]


def _sharegpt_message(message: Message) -> Mapping[str, str]:
    if not message.tool_calls:
        return {"from": _SHAREGPT[message.role], "value": message.content}
    calls = [{"name": call.name, "arguments": call.values()} for call in message.tool_calls]
    called = calls[0] if len(calls) == 1 else calls
    return {"from": "function_call", "value": json.dumps(called, ensure_ascii=False)}


def _sharegpt_answer(reply: str) -> Mapping[str, str]:
    return _sharegpt_message(message_of(reply))


def llama_factory_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """The sharegpt form. LLaMA-Factory skips conversations whose roles do not alternate, with a warning only.

    Results of tools stand where the user's messages do; a call has no text beside it. `tools` are in every row, as its
    reader looks for the column that dataset_info.json names.
    """
    messages = (*messages_of(row.prompt), message_of(row.chosen), message_of(row.rejected))
    if any(message.tool_calls and message.content.strip() for message in messages):
        return RowRefusal.TEXT_BESIDE_CALL
    if problem := roles_problem(_as_spoken(row.prompt)):
        return problem
    return {
        "conversations": once(_sharegpt, row.prompt),
        "chosen": once(_sharegpt_answer, row.chosen),
        "rejected": once(_sharegpt_answer, row.rejected),
        "tools": tools_text(row.prompt) or "",
    }


def _as_spoken(prompt: Prompt) -> Prompt:
    """Return a prompt in which the user says what tools gave."""
    return tuple(replace(one, role="user") if one.role == "tool" else one for one in messages_of(prompt))


def axolotl_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """`type: chat_template.default`, which knows four roles and fails on others."""
    if not {message.role for message in messages_of(row.prompt)} <= {"system", "user", "assistant", "tool"}:
        return RowRefusal.UNKNOWN_ROLE
    return {
        "messages": once(as_messages, row.prompt),
        "chosen": once(_answer, row.chosen),
        "rejected": once(_answer, row.rejected),
    }


def _dataset_info(file: str) -> Mapping[str, object]:
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "tools": "tools"}
    return {"file_name": file, "formatting": "sharegpt", "ranking": True, "columns": columns}


_TURN: Column = {"from": "string", "value": "string"}
_STRINGS: Mapping[str, Column] = {"chosen": "string", "rejected": "string"}

CHATS = (
    Format(
        name="trl",
        rows=each_pair(trl_row),
        takes_calls=True,
        read_by="TRL's DPOTrainer, CPOTrainer, ORPOTrainer, RewardTrainer",
        source="huggingface/trl, docs/source/dataset_formats.md (preference, conversational)",
        columns={
            "prompt": MESSAGES,
            "chosen": MESSAGES,
            "rejected": MESSAGES,
            "chosen_score": "float64",
            "rejected_score": "float64",
            **_IDS,
        },
        parquet=True,
    ),
    Format(
        name="nemo_customizer",
        rows=each_pair(nemo_customizer_row),
        read_by="NeMo Microservices Customizer 1.x, NeMo-Aligner",
        source="the file names and keys of NVIDIA's own adapter, nvidia-nat-nemo-customizer",
        columns={"prompt": MESSAGES, "chosen_response": "string", "rejected_response": "string"},
        files={
            SplitName.TRAIN: "training/training_file.jsonl",
            SplitName.VALIDATION: "validation/validation_file.jsonl",
        },
    ),
    Format(
        name="helix",
        rows=each_pair(helix_row),
        read_by="NeMo Helix (rl back end), NeMo-RL's BinaryPreferenceDataset",
        source="NeMo Helix, customizer/tutorials/dpo-customization-job; NVIDIA-NeMo/RL, docs/guides/dpo.md",
        columns={"prompt": MESSAGES, **_STRINGS},
        files=_TRAINING,
    ),
    Format(
        name="helpsteer3",
        rows=each_pair(helpsteer3_row),
        read_by="NeMo Helix, NeMo-RL's HelpSteer3 dataset",
        source="NVIDIA-NeMo/RL, nemo_rl/data/datasets/preference_datasets/helpsteer3.py",
        columns={"context": MESSAGES, "response1": "string", "response2": "string", "overall_preference": "int64"},
        files=_TRAINING,
    ),
    Format(
        name="tulu3",
        rows=each_pair(tulu3_row),
        read_by="NeMo Helix, NeMo-RL's Tulu3 dataset, TRL (with the prompt inside both sides)",
        source="allenai/llama-3.1-tulu-3-8b-preference-mixture; NVIDIA-NeMo/RL, docs/guides/dpo.md",
        columns={"chosen": MESSAGES, "rejected": MESSAGES},
        files=_TRAINING,
    ),
    Format(
        name="nemo_rl",
        rows=each_pair(nemo_rl_row),
        read_by="NeMo-RL's PreferenceDataset (dataset_type: rank)",
        source="NVIDIA-NeMo/RL, docs/guides/dpo.md",
        columns={"context": MESSAGES, "completions": [{"rank": "int64", "completion": MESSAGES}]},
    ),
    Format(
        name="openai",
        rows=each_pair(openai_row),
        read_by="OpenAI, Azure AI Foundry, Together, Fireworks",
        source="developers.openai.com/api/docs/guides/direct-preference-optimization",
        columns={
            "input": {"messages": MESSAGES, "tools": ["string"], "parallel_tool_calls": "bool"},
            "preferred_output": MESSAGES,
            "non_preferred_output": MESSAGES,
        },
        files=_TRAINING,
        takes_calls=True,
        cannot_carry="answers that call tools, and unknown roles",
    ),
    Format(
        name="llama_factory",
        rows=each_pair(llama_factory_row),
        read_by="LLaMA-Factory (`dataset_dir:` this folder, `dataset: preferences_train`)",
        source="hiyouga/LLaMA-Factory, data/README.md and src/llamafactory/data/converter.py",
        columns={"conversations": [_TURN], "chosen": _TURN, "rejected": _TURN, "tools": "string"},
        parquet=True,
        takes_calls=True,
        cannot_carry="prompts whose roles do not alternate, and calls with a text beside them",
        extra={
            "dataset_info.json": {f"preferences_{side}": _dataset_info(f"{side}.jsonl") for side in SplitName},
        },
    ),
    Format(
        name="ms_swift",
        rows=each_pair(ms_swift_row),
        read_by="ms-swift (`swift rlhf --rlhf_type dpo --dataset FILE`)",
        source="modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md and swift/dataset/preprocessor",
        columns=None,
        takes_calls=True,
    ),
    Format(
        name="openrlhf",
        rows=each_pair(openrlhf_row),
        read_by="OpenRLHF (`--data.prompt_key prompt --data.apply_chat_template`)",
        source="OpenRLHF/OpenRLHF, openrlhf/datasets/reward_dataset.py",
        columns={"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES},
        takes_calls=True,
        cannot_carry="prompts with tools on offer, which it does not pass to the template",
    ),
    Format(
        name="axolotl",
        rows=each_pair(axolotl_row),
        read_by="Axolotl (`type: chat_template.default`)",
        source="axolotl-ai-cloud/axolotl, src/axolotl/prompt_strategies/dpo/chat_template.py",
        columns={"messages": MESSAGES, "chosen": MESSAGE, "rejected": MESSAGE},
        parquet=True,
        cannot_carry="prompts with roles other than system, user, assistant and tool",
    ),
)
