"""Rank answers to questions: ours, and the way that repeats a question's states for every answer.

    python benchmarks/vqa_rank.py --questions 2 --answers 128 --json vqa.json

transformers cannot rank answers; the other way uses our own layers, projected anew for each answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from side_by_side import add_common_arguments, print_table, save, time_side_by_side

from lavis_lite import load_model
from lavis_lite.models.blip_models.blip_vqa import BlipVQA, Question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--answers", type=int, default=128)
    parser.add_argument("--list", type=int, default=3128, help="answers to choose the candidates from")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = load_model(
        "blip_vqa",
        "vqav2",
        is_eval=True,
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524},
    )
    model.to(arguments.device, getattr(torch, arguments.dtype))
    image = torch.randn(arguments.questions, 3, 480, 480).to(arguments.device, next(model.parameters()).dtype)
    samples = {"image": image, "text_input": ["what colour is the star?"] * arguments.questions}
    words = ["red", "blue", "star", "circle", "left", "right", "yes", "no", "two", "three", "large", "small"]
    answers = [" ".join((words[i % 12], words[i // 12 % 12], str(i))) for i in range(arguments.list)]

    with torch.inference_mode():
        question = model.read_question(samples)
    model.read_question = lambda samples: question  # the vision transformer is not what is measured

    @torch.inference_mode()
    def ours() -> list[int]:
        return model.rank_answers(samples, answers, arguments.answers).tolist()

    ways = {"a question repeated for every answer": repeated_way(model, question, answers, arguments)}
    ways["lavis_lite"] = ours
    title = f"rank {arguments.answers} answers to each of {arguments.questions} questions, {arguments.dtype}"
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against="a question repeated for every answer")
    save(arguments.json, {title: timings})


def repeated_way(
    model: BlipVQA, question: Question, answers: list[str], arguments: argparse.Namespace
) -> Callable[[], torch.Tensor]:
    """Return what an implementation does that expands the question's states along the batch."""
    states = torch.randn(arguments.questions, question.mask.shape[-1], 768).to(
        model.device, next(model.parameters()).dtype
    )

    @torch.inference_mode()
    def way() -> torch.Tensor:
        input_ids, attention_mask = model.tokenize(answers[: arguments.answers], model.dec_token_id)
        rows = arguments.questions
        expanded = states.repeat_interleave(arguments.answers, 0)
        kv = model.text_decoder.bert.project_image(expanded)
        mask = question.mask.repeat_interleave(arguments.answers, 0)
        return model._decode(input_ids.repeat(rows, 1), attention_mask.repeat(rows, 1), kv, mask)[1]

    return way


if __name__ == "__main__":
    main()
