"""The work with distilabel, whose client asks for several generations with `n`: a row for each where it is ignored."""

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from work import Work, timed


def _generated(work: Work) -> int:
    batch = work.concurrency

    def model() -> OpenAILLM:
        return OpenAILLM(model=work.model, base_url=work.url, api_key="no-key")

    rows = [{"question": question} for question in work.questions for _ in range(work.responses)]
    with Pipeline(name="rated-responses", cache_dir=work.folder) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=batch)
        answer = TextGeneration(
            llm=model(),
            columns=["question"],
            template="{{ question }}",
            input_batch_size=batch,
            output_mappings={"generation": "response", "model_name": "answered_by"},
        )
        rate = TextGeneration(
            llm=model(), columns=["question", "response"], template=work.rating_prompt, input_batch_size=batch
        )
        load >> answer >> rate
    rated = pipeline.run(use_cache=False)["default"]["train"]
    return sum(text is not None for text in rated["generation"])


if __name__ == "__main__":
    timed(_generated)
