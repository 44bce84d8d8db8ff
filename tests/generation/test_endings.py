import pytest

from nat_dpo_pipeline.core.endings import Ending, ending_of, shown

WORDS = {
    Ending.WHOLE: ["stop", "STOP", "end_turn", "stop_sequence", "COMPLETE", "eos_token", "eos", "", " ", None, "null"],
    Ending.CUT: ["length", "max_tokens", "MAX_TOKENS", "max-tokens", "model_length", "pause_turn", "repetition"],
    Ending.FILTERED: ["content_filter", "content-filter", "SAFETY", "RECITATION", "refusal", "sensitive"],
    Ending.TOOL_CALLS: ["tool_calls", "tool-calls", "function_call", "tool_use", "MALFORMED_FUNCTION_CALL"],
    Ending.GIVEN_UP: ["abort", "error", "ERROR", "insufficient_system_resource", "network_error", "cancelled"],
    Ending.UNKNOWN: ["OTHER", "stopped_by_moon", "FINISH_REASON_UNSPECIFIED", "長さ"],
}


@pytest.mark.parametrize(("word", "ending"), [(word, ending) for ending, words in WORDS.items() for word in words])
def test_a_word_means_the_same_in_any_spelling(word: str | None, ending: Ending) -> None:
    assert ending_of(word) is ending


def test_a_word_is_shown_in_one_short_printable_line() -> None:
    assert shown("moon\n\x1b[31m\ud800") == "moon\\n\\x1b[31m\\ud800"
    assert len(shown("x" * 1000)) == 40
