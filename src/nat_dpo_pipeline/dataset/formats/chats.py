"""Formats of chat messages, one row a pair."""

from collections.abc import Mapping
from hashlib import blake2b

from nat_dpo_pipeline.core.messages import Message, Prompt, as_messages, messages_of, tools_text
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
    return {"messages": as_messages(prompt), "tools": [], "parallel_tool_calls": True}


def openai_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """Text only; a `tool` message would need the call that it answers, which a pair does not keep."""
    if not {message.role for message in messages_of(row.prompt)} <= {"system", "developer", "user", "assistant"}:
        return RowRefusal.UNKNOWN_ROLE
    return {
        "input": once(_openai_input, row.prompt),
        "preferred_output": once(as_answer, row.chosen),
        "non_preferred_output": once(as_answer, row.rejected),
    }


_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system"}


def _sharegpt(prompt: Prompt) -> list[Mapping[str, str]]:
    return [{"from": _SHAREGPT[message.role], "value": message.content} for message in messages_of(prompt)]


def _sharegpt_answer(text: str) -> Mapping[str, str]:
    return {"from": "gpt", "value": text}


def llama_factory_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """The sharegpt form. LLaMA-Factory skips conversations whose roles do not alternate, with a warning only."""
    if problem := roles_problem(row.prompt):
        return problem
    return {
        "conversations": once(_sharegpt, row.prompt),
        "chosen": once(_sharegpt_answer, row.chosen),
        "rejected": once(_sharegpt_answer, row.rejected),
    }


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
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
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
        cannot_carry="prompts with roles other than system, developer, user and assistant",
    ),
    Format(
        name="llama_factory",
        rows=each_pair(llama_factory_row),
        read_by="LLaMA-Factory (`dataset_dir:` this folder, `dataset: preferences_train`)",
        source="hiyouga/LLaMA-Factory, data/README.md and src/llamafactory/data/converter.py",
        columns={"conversations": [_TURN], "chosen": _TURN, "rejected": _TURN},
        parquet=True,
        cannot_carry="prompts whose roles do not alternate",
        extra={
            "dataset_info.json": {f"preferences_{side}": _dataset_info(f"{side}.jsonl") for side in SplitName},
        },
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
