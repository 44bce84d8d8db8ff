"""The word a server gives for the end of a reply (`finish_reason`) → what it means."""

from enum import StrEnum

from nat_dpo_pipeline.core.printable import printable


class Ending(StrEnum):
    """End of a reply. `GIVEN_UP`: the server failed under way; `UNKNOWN`: a word that is not in the table."""

    WHOLE = "whole"
    CUT = "cut"
    FILTERED = "filtered"
    TOOL_CALLS = "tool_calls"
    GIVEN_UP = "given_up"
    UNKNOWN = "unknown"


# By the documentation of each API and the source of each server, November 2026. A gateway may hand through the word of
# the API behind it, in capitals or with hyphens.
_WORDS = {
    Ending.WHOLE: (
        "stop",  # OpenAI, vLLM, SGLang, llama.cpp, Ollama, Mistral, Google
        "end_turn stop_sequence",  # Anthropic, Bedrock, Cohere
        "complete",  # Cohere
        "eos_token",  # TGI, watsonx
        "eos",  # Together
        "completed",  # OpenAI Responses
        "finish finished endoftext",  # Titan, AI21
        "none null",  # None, made a text
    ),
    Ending.CUT: (
        "length",  # OpenAI and most others
        "max_tokens",  # Anthropic, Google, Cohere, Bedrock, watsonx
        "model_length",  # Mistral: the context is full
        "model_context_window_exceeded",  # Anthropic, Bedrock
        "max_output_tokens incomplete",  # OpenAI Responses
        "pause_turn",  # Anthropic: a long turn, to be continued
        "error_limit",  # Cohere: the context is full
        "token_limit time_limit not_finished",  # watsonx
        "repetition",  # vLLM: stopped in an endless repetition
    ),
    Ending.FILTERED: (
        "content_filter",  # OpenAI, Azure
        "refusal",  # Anthropic: a classifier stopped the reply
        "content_filtered guardrail_intervened",  # Bedrock
        "safety recitation language blocklist prohibited_content spii image_safety model_armor",  # Google
        "error_toxic",  # Cohere
        "sensitive",  # Zhipu
    ),
    Ending.TOOL_CALLS: (
        "tool_calls function_call",  # OpenAI
        "tool_use",  # Anthropic, Bedrock
        "tool_call",  # Cohere
        "malformed_function_call unexpected_tool_call too_many_tool_calls",  # Google
        "malformed_tool_use",  # Bedrock
    ),
    Ending.GIVEN_UP: (
        "abort aborted",  # vLLM, SGLang
        "error",  # OpenRouter, Mistral, vLLM, Cohere, watsonx
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        "cancelled canceled user_cancel timeout",  # watsonx, Cohere
        "failed",  # OpenAI Responses
        "malformed_model_output",  # Bedrock
        "load unload",  # Ollama: the model was loaded, and not asked
    ),
}
_MEANINGS = {word: ending for ending, lines in _WORDS.items() for line in lines for word in line.split()}
_LONGEST_WORD = 40


def ending_of(finish_reason: str | None) -> Ending:
    """Return the meaning of a `finish_reason`; many servers send none with a whole reply."""
    word = (finish_reason or "").strip().lower().replace("-", "_").replace(" ", "_")
    return _MEANINGS.get(word, Ending.UNKNOWN) if word else Ending.WHOLE


def shown(finish_reason: str) -> str:
    """Return a server's word for a message: on one line, at most 40 characters."""
    return printable(finish_reason)[:_LONGEST_WORD]
