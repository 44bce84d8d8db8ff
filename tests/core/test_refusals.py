import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.refusals import is_refusal

REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, but I can’t help with that request.",
    "I'm sorry, I can't help with that.",
    "I'm sorry. I can't help with that.",
    "I'm sorry I can't assist with this request.",
    "I am sorry, but I cannot fulfill this request.",
    "I'm very sorry, but I won't be able to tell you.",
    "I'm sorry, but that's not something I can do.",
    "I'm sorry, but this request goes against my guidelines.",
    "I'm sorry, but as an AI language model I cannot give medical advice.",
    "Sorry, but I can't do that.",
    "Sorry, I’m not able to help.",
    "My apologies, but I cannot continue.",
    "Apologies, but I am unable to say.",
    "I apologize, but I cannot provide instructions for that.",
    "I apologise, but I must decline.",
    "Unfortunately, I cannot provide legal advice.",
    "Unfortunately I am not able to share that.",
    "I can't create content of this kind.",
    "I cannot possibly help you break into a house.",
    "I can not answer this question.",
    "I cannot help you with this.",
    "I can't help with that, but I can tell you about locks in general.",
    "I can't comply with this request.",
    "I won't write that.",
    "I will not assist in this.",
    "I'm unable to provide that information.",
    "I am not able to generate images of people.",
    "I'm not allowed to discuss this topic.",
    "I'm not comfortable writing this.",
    "I must decline to answer.",
    "I must respectfully decline.",
    "I have to refuse.",
    "As an AI language model, I cannot have opinions.",
    "As an AI language model, I don't have personal experiences.",
    "As an AI, I can't feel pain.",
    "As an AI assistant developed by a company, I'm unable to vote.",
    "As a large language model, I am not able to taste tea.",
    "  \n I'm sorry, but I can't assist with that.",
    "I'M SORRY, BUT I CAN'T HELP.",
]

ANSWERS = [
    "",
    "Tea is a drink.",
    "I'm sorry to hear that you are ill. Drink tea.",
    "I'm sorry that you are going through this. Here is what may help:",
    "I'm sorry this happened to you. First, call the bank.",
    "I'm sorry for your loss.",
    "I'm so sorry I missed your birthday! Let me make it up to you.",
    "I'm sorry I can't make it on Friday, but have fun.",
    "Sorry, I was late because of the train.",
    "Sorry, that was unclear. The answer is 4.",
    "I apologize for the confusion. The capital is Canberra.",
    "I can help you with that.",
    "I can't help but smile when I think of it.",
    "I can't wait to tell you about tea.",
    "I cannot recommend this book enough.",
    "I can't stress enough how hot the water must be.",
    "I won the race.",
    "I will note the main points.",
    "I must admit that this is hard. Start with the roots.",
    "I must say that oolong is underrated.",
    "Unfortunately, I cannot tell which version you use, so here are both.",
    "As an AI language model, I can explain both sides.",
    "As an AI assistant, I am happy to help.",
    "As an aide to the senator, I cannot be everywhere.",
    "As an example, I do not use sugar.",
    "As a language teacher, I do not correct every error.",
    "A model that says \"I'm sorry, but I can't assist with that\" has declined.",
    "The server cannot answer, since the port is closed.",
    "You can't help everyone.",
    "Write this: I'm sorry, but I can't come.",
]


@pytest.mark.parametrize("response", REFUSALS)
def test_a_response_that_declines_is_a_refusal(response: str) -> None:
    assert is_refusal(response)


@pytest.mark.parametrize("response", ANSWERS)
def test_an_answer_is_none(response: str) -> None:
    assert not is_refusal(response)


@given(st.sampled_from(REFUSALS), st.text())
def test_what_follows_the_opening_does_not_matter(refusal: str, rest: str) -> None:
    assert is_refusal(f"{refusal}\n{rest}")


@given(st.sampled_from(REFUSALS), st.sampled_from([answer for answer in ANSWERS if answer]))
def test_a_refusal_further_down_is_no_refusal(refusal: str, answer: str) -> None:
    assert not is_refusal(f"{answer}\n\n{refusal}")
