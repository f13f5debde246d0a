"""The flags of the export: what they mean, and what is said of wrong ones."""

from collections.abc import Callable

import pytest

from export import errors, options


def test_outputs_are_names_stages_and_numbers_of_best_classes() -> None:
    chosen = options.Options(outputs=options.outputs("probabilities, top5,features:layer4,top5"))
    assert chosen.has_probabilities
    assert chosen.tops == (5,)
    assert chosen.stages == ("layer4",)


def test_input_sizes_are_channels_height_and_width() -> None:
    assert options.input_size("3x224x192") == (3, 224, 192)


def test_numbers_are_separated_by_commas() -> None:
    assert options.numbers("--mean", "0.5,.25, 1") == (0.5, 0.25, 1.0)


@pytest.mark.parametrize(
    ("parse", "sentence"),
    [
        (lambda: options.outputs("probabilites"), r"'probabilites' \(did you mean 'probabilities'\?\); expected"),
        (lambda: options.outputs("features:"), "expected probabilities, top5"),
        (lambda: options.outputs("top0"), "--outputs has 'top0'"),
        (
            lambda: options.precisions("fp32,fp8"),
            "--precision has 'fp32,fp8'; expected one or more of fp32, fp16, int8",
        ),
        (lambda: options.precisions(""), "expected one or more"),
        (lambda: options.input_size("224x224"), r"--input-size is '224x224'; expected channels \(1 or 3\)"),
        (lambda: options.input_size("4x8x8"), "such as 3x224x224"),
        (lambda: options.input_size("3x0x8"), "such as 3x224x224"),
        (lambda: options.numbers("--std", "a,b"), "--std is 'a,b'; expected one number for each channel"),
        (lambda: options.layout("nchw"), "--input is 'nchw'; expected uint8-nhwc or float32-nchw"),
    ],
)
def test_what_cannot_be_meant_is_explained(parse: Callable[[], object], sentence: str) -> None:
    with pytest.raises(errors.OptionError, match=sentence):
        parse()
