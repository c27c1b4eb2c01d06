"""The report as a page, read back as HTML."""

import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from finetune_api.report import Point, Report
from finetune_api.run import EvaluationOutcome, MetricResult
from finetune_trainer.page import MOST_CHARACTERS, comparison, excerpt, render_page, tied
from support.reports import (
    make_data,
    make_evaluation,
    make_layout,
    make_metric,
    make_model,
    make_outcome,
    make_report,
    make_sample,
    make_training,
)

MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "wbr"}


class Outline(HTMLParser):
    """Every start tag, the text of the body, and whether the tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "head" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def text_of(report: Report) -> str:
    return Outline(render_page(report)).text


def evaluated(**changes: Any) -> Report:
    return make_report(outcome=make_outcome(evaluation=make_evaluation(**changes)))


def judged(metric: MetricResult) -> EvaluationOutcome:
    return make_evaluation(primary_metric=metric.name, metrics=[metric])


def test_the_page_tells_its_story_in_order() -> None:
    text = text_of(make_report(warnings=["w1", "w2", "w3", "the fourth"]))
    want = [
        "clinic/ clinic-triage",
        "20261123-3f9a1c2b",
        "23 November 2026, 14:02 UTC",
        "Passed",
        "The adapter answers 31 of 36",
        "4 warnings",
        "Base model against adapter",
        "Training 96 steps",
        "Data Source",
        "Sample answers",
        "Settings",
        "Run Time by stage",
        "All 4 warnings",
    ]
    places = [text.find(words) for words in want]
    assert -1 not in places
    assert places == sorted(places)


def test_the_page_is_balanced_and_needs_nothing_from_elsewhere() -> None:
    page = render_page(make_report())
    outline = Outline(page)
    assert outline.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    addresses = [v for _, attributes in outline.tags for k, v in attributes.items() if k in {"src", "href", "srcset"}]
    assert addresses == []
    assert not re.search(r"url\(|@import|https?:", page)


def test_text_from_the_data_is_never_markup() -> None:
    evil = "<script>alert('x')</script><img src=x onerror=alert(1)>"
    sample = make_sample(prompt=evil, reference=evil, base=evil, adapter=evil)
    page = render_page(
        make_report(
            name=evil,
            namespace=evil,
            samples=[sample],
            warnings=[evil],
            versions={evil: evil},
            seconds={evil: 1.0},
            data=make_data(columns=[evil], uri=evil),
            model=make_model(architecture=evil),
        )
    )
    outline = Outline(page)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert outline.text.count("<script>alert('x')</script>") >= 8


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_never_appear_raw(broken: float) -> None:
    metric = make_metric(name="perplexity", higher_is_better=False, base=broken, difference=broken, ci=(broken, broken))
    points = [Point(step=1, value=broken)]
    text = text_of(
        make_report(
            outcome=make_outcome(evaluation=judged(metric), adapter=None),
            training=make_training(
                train_loss=points, validation_loss=[], learning_rate=points, resumed_from=None, tokens_per_second=broken
            ),
        )
    )
    assert not re.search(r"\b(nan|inf|None|null|Infinity)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("verdict", ["Passed", "Inconclusive", "Failed"])
def test_the_badge_names_the_verdict_with_a_sign_of_its_own(verdict: str) -> None:
    page = render_page(evaluated(verdict=verdict))
    signs = {"Passed": "✓", "Inconclusive": "?", "Failed": "✕"}
    assert f'<p class="badge {verdict.lower()}">{signs[verdict]} {verdict}</p>' in page
    assert ("not promoted" in page) == (verdict != "Passed")


def test_the_metric_that_decides_comes_first_and_says_so() -> None:
    rows = comparison(make_evaluation(primary_metric="perplexity"))
    assert [row.metric.name for row in rows] == ["perplexity", "exactMatch", "tokenF1"]
    assert [row.decides for row in rows] == [True, False, False]
    text = text_of(evaluated())
    assert "Exact match higher is better; decides 0.0 % 86.1 % +86.1 better [+72.2, +97.2]" in text
    assert f"Perplexity lower is better 27.42 1.05 {MINUS}26.37 better [{MINUS}33.90, {MINUS}20.12]" in text


def test_a_run_without_an_evaluation_says_what_happened() -> None:
    text = text_of(make_report(outcome=make_outcome(evaluation=None, message="The test split was empty.")))
    assert "Not evaluated The test split was empty." in text
    assert "Base model against adapter" not in text


def test_an_answer_that_equals_the_reference_is_marked_in_words() -> None:
    sample = make_sample(reference='{"a": 1}', base="no", adapter=' {"a":  1}\n')
    text = text_of(make_report(samples=[sample]))
    assert "Base model ≠ differs no Adapter ✓ equals the reference" in text


def test_empty_answers_are_called_empty() -> None:
    assert "Base model ≠ differs (empty)" in text_of(make_report(samples=[make_sample(base=" \n")]))


def test_text_without_prompts_explains_why_there_are_no_answers() -> None:
    text = text_of(make_report(samples=[], data=make_data(format="text", detected=False)))
    assert "The rows are plain text without a prompt" in text
    assert "text (given)" in text
    assert "No answers were generated" in text_of(make_report(samples=[]))


def test_long_texts_are_cut_and_say_how_much_is_missing() -> None:
    assert excerpt("a" * MOST_CHARACTERS) == "a" * MOST_CHARACTERS
    assert excerpt("a" * (MOST_CHARACTERS + 2345)).endswith("aa… (2,345 more characters in report.json)")


def test_many_warnings_stand_at_the_end_and_are_announced_at_the_top() -> None:
    warnings = [f"warning number {i}" for i in range(1, 31)]
    page = render_page(make_report(warnings=warnings, data=make_data(warnings=["warning number 30", "one more"])))
    text = Outline(page).text
    assert "31 warnings" in text
    assert "28 more at the end of this page" in text
    assert page.index('href="#warnings"') < page.index('id="warnings"')
    assert text.count("warning number 30") == text.count("one more") == 1
    assert text.count("warning number 3 ") == 2


def test_few_warnings_stand_at_the_top_only_and_none_leave_no_box() -> None:
    assert text_of(make_report(warnings=["beware"])).count("beware") == 1
    assert 'class="warnings"' not in render_page(make_report(warnings=[]))


def test_the_data_summary_says_where_every_row_went() -> None:
    text = text_of(make_report())
    assert "messages (detected)" in text
    assert "Rows in the source 240 Exact duplicates dropped 4 Left out 8" in text
    assert "longer than maxLength (2048 tokens) 7 17, 58, 103, 104, 190, … the last message is not from" in text
    assert "the assistant 1 221" in text
    assert "Tokens 14,382 1,956 3,064 Supervised tokens 2,366 322 504 Median length 84 85 83" in text
    assert "train 169 rows, 74 % validation 23 rows, 10 % test 36 rows, 16 %" in text


def test_settings_of_the_manifest_are_told_apart_from_defaults() -> None:
    page = render_page(make_report())
    assert page.count('<tr class="ours">') == 6
    text = Outline(page).text
    assert "6 of 27 were set in the manifest" in text
    assert "training.epochs 5 manifest training.maxEpochs 5 default: best-practice article" in text


def test_the_run_facts_are_written_for_people() -> None:
    text = text_of(make_report())
    for want in [
        "Parameters 134,515,008 Trained parameters 4,884,480 (3.63 %)",
        "Quantisation of the base NF4 (4 bit)",
        "Size of the weights 256.6 MiB",
        "Method LoRA adapter Architecture LlamaForCausalLM",
        "Speed 412.7 tokens/s over 2 min 31 s Memory 2.0 GiB at its peak, libraries included Attempt 2",
        "Attempt 2, resumed from step 32",
        "torch 2.11.0, transformers 5.17.0",
        "prepare 3.4 s train 2 min 39 s evaluate 3 min 28 s publish 0.8 s",
    ]:
        assert want in text


def test_the_page_tells_how_the_memory_was_used() -> None:
    layout = make_layout(expanded=True, recomputed=4)
    training = make_training(layout=layout, device="NVIDIA H100", steady_tokens_per_second=455)
    text = text_of(make_report(training=training))
    assert "455.0 after warm-up; 430.0 were foreseen Memory 2.0 GiB at its peak; 1.4 GiB were foreseen" in text
    assert (
        "Use of memory Each pass took up to 8,192 tokens; the quantised base was kept dequantised; 4 layers were "
        "computed again in the backward pass to save memory. Attempt 2"
    ) in text
    assert "Use of memory" not in text_of(make_report())


def test_a_whole_model_is_called_one_throughout() -> None:
    stored = make_outcome().adapter.model_copy(update={"uri": "s3://adapters/run/model"})
    text = text_of(
        make_report(model=make_model(method="full", quantization="none"), outcome=make_outcome(adapter=stored))
    )
    for want in [
        "The tuned model answers 31 of 36 held-out rows exactly",
        "Tuned model: s3://adapters/run/model",
        "Base model against tuned model",
        "Metric Base Tuned model Difference",
        "In the plots, the tuned model is better right of zero",
        "The tuned model of step 84 was kept",
        "Tuned model ✓ equals the reference",
        "Method full fine-tuning, every weight",
        "Tuned model digest sha256:9b1c0d2e",
    ]:
        assert want in text
    assert "adapter" not in text.replace("s3://adapters", "").lower()


def test_training_says_whether_it_stopped_early() -> None:
    assert "96 steps (110 planned), 4.36 epochs; stopped early" in text_of(make_report())
    text = text_of(make_report(training=make_training(steps=1, stopped_early=False, best_step=1)))
    assert "1 step (110 planned), 4.36 epochs. The adapter of step 1 was kept." in text


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (tied("95 % of 2 min"), "95\N{NO-BREAK SPACE}% of 2\N{NO-BREAK SPACE}min"),
        (tied("in 3 steps, [+1, +2], so"), "in 3 steps, [+1,\N{NO-BREAK SPACE}+2], so"),
    ],
)
def test_figures_and_their_units_stay_on_one_line(got: str, want: str) -> None:
    assert got == want
