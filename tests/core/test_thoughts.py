import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.thoughts import SplitReply, split_thoughts

# How models write thoughts and an answer, by the family that does.
FORMS = {
    "DeepSeek, Qwen": "<think>\n{thoughts}\n</think>\n\n{answer}",
    "tags in capitals": "<THINK>{thoughts}</THINK>{answer}",
    "an opening tag twice": "<think>\n<think>{thoughts}</think>{answer}",
    "the prompt has the opening tag": "{thoughts}\n</think>\n\n{answer}",
    "Hunyuan A13B": "<think>\n{thoughts}\n</think>\n<answer>\n{answer}\n</answer>",
    "Hunyuan 3": "<think:opensource>{thoughts}</think:opensource>{answer}",
    "ERNIE 4.5": "{thoughts}\n</think>\n\n<response>\n{answer}\n</response>\n",
    "Seed-OSS": "<seed:think>{thoughts}</seed:think>{answer}",
    "MiniMax-M3": "<mm:think>{thoughts}</mm:think>{answer}",
    "Reflection": "<thinking>{thoughts}</thinking>\n{answer}",
    "EXAONE, Gemini": "<thought>{thoughts}</thought>{answer}",
    "reasoning": "<reasoning>\n{thoughts}\n</reasoning>\n{answer}",
    "Mistral": "[THINK]{thoughts}[/THINK]{answer}",
    "Kimi-VL": "◁think▷{thoughts}◁/think▷{answer}",
    "Kimi K3": "<|open|>think<|sep|>{thoughts}<|close|>think<|sep|>"
    "<|open|>response<|sep|>{answer}<|close|>response<|sep|><|close|>message<|sep|>",
    "Cohere": "<|START_THINKING|>{thoughts}<|END_THINKING|><|START_RESPONSE|>{answer}<|END_RESPONSE|>",
    "Apertus": "<|inner_prefix|>{thoughts}<|inner_suffix|>{answer}",
    "openPangu": "[unused16]{thoughts}[unused17]{answer}",
    "OpenThinker": "<|begin_of_thought|>\n\n{thoughts}\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\n{answer}\n\n<|end_of_solution|>",
    "Gemma 4": "<|channel>thought\n{thoughts}<channel|>{answer}",
    "Solar Open": "<|think|>{thoughts}<|end|><|begin|>assistant<|content|>{answer}<|end|>",
    "Inkling": "<|message_model|><|content_thinking|>{thoughts}<|end_message|>"
    "<|message_model|><|content_text|>{answer}<|end_message|><|content_model_end_sampling|>",
    "HyperCLOVA X": "/think\n{thoughts}<|im_end|>\n<|im_start|>assistant\n{answer}",
    "Granite 3.2": "Here is my thought process: {thoughts} Here is my response: {answer}",
    "gpt-oss": "<|channel|>analysis<|message|>{thoughts}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{answer}<|return|>",
    "gpt-oss with JSON": "<|channel|>analysis<|message|>{thoughts}<|end|>"
    "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{answer}",
    "gpt-oss without its tokens": "analysisWell. {thoughts}assistantfinal{answer}",
    "Muse Glimmer": " to=self<|message|>{thoughts}<|eom|><|start|>assistant to=user<|message|>{answer}<|eot|>",
}
# Those whose opening mark alone tells that thoughts begin.
CUT = {
    name: form.partition("{thoughts}")[0] + "{thoughts}"
    for name, form in FORMS.items()
    if not form.startswith(("{thoughts}", "/think", "Here", "analysis"))
}
# Any text, without what marks are made of.
WORDS = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="<>[]◁▷|`"))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(answer=WORDS, thoughts=WORDS)
def test_an_answer_wrapped_in_any_form_comes_back(form: str, answer: str, thoughts: str) -> None:
    split = split_thoughts(form.format(thoughts=thoughts, answer=answer))
    assert split.answer == answer.strip()
    assert split.thoughts.removeprefix("Well.").strip() == thoughts.strip()
    assert split.ended


@pytest.mark.parametrize("form", CUT.values(), ids=CUT)
@given(thoughts=WORDS)
def test_thoughts_that_were_never_closed_leave_no_answer(form: str, thoughts: str) -> None:
    assert split_thoughts(form.format(thoughts=thoughts)) == SplitReply("", thoughts.strip(), ended=False)


@given(WORDS)
def test_a_text_without_marks_is_the_answer_as_it_is(text: str) -> None:
    assert split_thoughts(text) == SplitReply(text)


@given(st.lists(st.sampled_from([*"ab \n`'", "<think>", "</think>", "<|message|>", "<|channel|>final", "<|end|>"])))
def test_any_mixture_of_marks_is_split(pieces: list[str]) -> None:
    text = "".join(pieces)
    split = split_thoughts(text)
    assert split.answer in text
    assert split.ended or not split.answer


@pytest.mark.parametrize(
    "text",
    [
        "Write <think>first</think> and then the answer.",
        "Put the thoughts between <think> and </think>.",
        "The thoughts end with `</think>`, then comes the answer.",
        "Each reply has `some thoughts</think>an answer` in it.",
        'They end with "</think>" and begin with “[THINK]”.',
        "For example\n```\nthoughts\n</think>\nanswer\n```\nwhich is a reply.",
        "`<think>` begins the thoughts.",
        "```xml\n<think>Hm.</think>\n```",
        "<|message|> ends the header.",
        "analysisResult = analyse(data)",
        "Here is my thought process: first I read the question.",
    ],
)
def test_an_answer_that_speaks_of_marks_is_an_answer(text: str) -> None:
    assert split_thoughts(text) == SplitReply(text)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("<think>a</think>\n<think>b</think>c", SplitReply("c", "a\nb")),
        ("a</think><think>b</think>c", SplitReply("c", "a\nb")),
        ("<think>a</think><think>b", SplitReply("", "a\nb", ended=False)),
        ("<think>\n\n</think>\n\nb", SplitReply("b")),
        ("Like <think>x</think>?</think>b", SplitReply("b", "Like <think>x</think>?")),
        ("<think>a</think>\n<answer>b</answer>", SplitReply("<answer>b</answer>", "a")),
        ("<think>a</think>It is <|end|>", SplitReply("It is <|end|>", "a")),
        ("<|channel|>final<|message|>b", SplitReply("b")),
        ("<|channel|>commentary<|message|>a<|end|><|channel|>final<|message|>b", SplitReply("b", "a")),
        ("<|channel|>analysis<|message|>a<|end|>", SplitReply("", "a", ended=False)),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>c",
            SplitReply("c", "a"),
        ),
        (
            "<|channel|>commentary to=functions.search <|constrain|>json<|message|>{}<|call|>",
            SplitReply("", "{}", ended=False),
        ),
    ],
)
def test_several_thoughts_and_frames(text: str, split: SplitReply) -> None:
    assert split_thoughts(text) == split
