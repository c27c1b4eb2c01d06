"""YAML is read as Kubernetes reads it, and written so that Kubernetes reads the same."""

import pytest

from finetune_api.documents import InvalidManifest, dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ("2e-5", 2e-5),
        ("2.0e-5", 2e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("3", 3),
        ("1_000", 1000),
        ("017", 15),
        ("0o17", 15),
        ("0x1F", 31),
        ("08", 8.0),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("yes", True),
        ("off", False),
        ("n", False),
        ("True", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("e5", "e5"),
        ("'2e-5'", "2e-5"),
        ("!!str 3", "3"),
    ],
)
def test_a_scalar_has_the_type_that_kubernetes_gives_it(written: str, want: object) -> None:
    # The expectations were compared with sigs.k8s.io/yaml 1.6.0, which kubectl and the API server use.
    document = load_yaml(f"value: {written}\n")

    assert document == {"value": want}
    assert type(document["value"]) is type(want)


def test_a_number_that_json_cannot_hold_stays_text() -> None:
    assert load_yaml("[.inf, -.inf, .nan]") == [".inf", "-.inf", ".nan"]


def test_keys_are_text_even_where_a_value_would_not_be() -> None:
    assert load_yaml("{n: 1, 2: b, on: c}") == {"n": 1, "2": "b", "on": "c"}


def test_anchors_and_merges_work() -> None:
    text = "base: &base {rank: 8, alpha: 16}\nlora: {<<: *base, rank: 32}\n"

    assert load_yaml(text) == {"base": {"rank": 8, "alpha": 16}, "lora": {"rank": 32, "alpha": 16}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_a_text_without_content_is_no_document(text: str) -> None:
    assert load_yaml(text) is None


def test_a_separator_around_one_document_is_fine() -> None:
    assert load_yaml("---\nkind: FineTuneJob\n---\n") == {"kind": "FineTuneJob"}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("spec:\n  epochs: 3\n  epochs: 4\n", "line 3, column 3: epochs is given twice, first in line 2."),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here."),
        ("spec:\n\tepochs: 3\n", "line 2, column 1: found character '\\t' that cannot start any token."),
        ("a: [1, 2", "line 1, column 9: expected ',' or ']', but got '<stream end>'."),
        ("a: 1\nb: \x07\n", "line 2: the character #x0007 is not allowed in YAML."),
        ("[a, b]: 1\n", "line 1, column 1: a key must be text."),
        ("a: &x [*x]\n", "line 1, column 4: found unconstructable recursive node."),
        ("a: !!int x\n", "line 1, column 4: 'x' is not !!int."),
        ("a: !!bool perhaps\n", "line 1, column 4: 'perhaps' is not !!bool."),
        ("a: !!python/name:os.system\n", "line 1, column 4: the tag !!python/name:os.system is not allowed."),
    ],
)
def test_bad_yaml_is_refused_with_its_place(text: str, want: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        load_yaml(text)

    assert str(caught.value) == want


def test_several_documents_are_refused_with_the_lines_they_start_in() -> None:
    with pytest.raises(InvalidManifest) as caught:
        load_yaml("kind: ConfigMap\n---\nkind: FineTuneJob\n---\nkind: Secret\n")

    want = "the file holds 3 YAML documents, starting in lines 1, 3 and 5. Give one FineTuneJob per file."
    assert str(caught.value) == want


def test_what_is_written_is_read_back_unchanged() -> None:
    data = {
        "n": "n",
        "rate": 2e-5,
        "text": ["2e-5", "1:30", "2026-11-23", "08", "0o17", "yes", "", "null"],
        "none": None,
    }

    assert load_yaml(dump_yaml(data)) == data


def test_text_that_kubernetes_would_take_for_something_else_is_quoted() -> None:
    assert dump_yaml({"n": "2e-5"}) == "'n': '2e-5'\n"


def test_shared_values_are_written_out_without_anchors() -> None:
    shared = {"rank": 16}

    assert dump_yaml({"a": shared, "b": shared}) == "a:\n  rank: 16\nb:\n  rank: 16\n"
