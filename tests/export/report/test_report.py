"""The page says what the evidence says, and needs nothing but itself."""

import dataclasses
import html
import html.parser
import re

import pytest

from export import evidence, report
from export.report import charts
from tests import conftest

PARITY = evidence.Parity("logits", "real", 1, (32, 32, 1), 2.1e-6, 1.3e-6, True)
BOTTLENECK = evidence.StageCost("layer1", (256, 56, 56), 215_808, 667_942_912, 3_930_587_136)
FOUND = evidence.Evidence(
    identity=evidence.Identity(
        name="digits",
        version=3,
        architecture="lenet5",
        precision="fp32",
        providers=("CPUExecutionProvider",),
        weights_source="weights.pth",
        weights_sha256="a1" * 32,
        graph_sha256="b2" * 32,
        graph_bytes=249_508,
        opset=20,
        tools={"torch": "2.13.0", "onnx": "1.23.2"},
        preprocessing="GRAY, to 32x32",
    ),
    inputs=(evidence.Tensor("image", "uint8", ("batch", 32, 32, 1)),),
    outputs=(evidence.Tensor("logits", "float", ("batch", 10)),),
    operators=evidence.Operators(
        traced={"Conv": 3, "Relu": 4, "ReduceMean": 1},
        exported={"Conv": 3, "Relu": 4, "GlobalAveragePool": 1},
        optimized={"Conv": 3, "GlobalAveragePool": 1, "ReorderOutput": 1},
        passes=(
            evidence.PassEffect("front", "Puts the normalisation into the graph.", 8, 10, True),
            evidence.PassEffect("no_ops", "Takes out what does nothing.", 10, 10, False),
        ),
    ),
    costs=evidence.Costs(
        parameters=265_958,
        macs=685_942_912,
        weight_bytes=246_848,
        activation_bytes=38_656,
        stages=(evidence.StageCost("stem", (64, 56, 56), 9_536, 18_000_000, 18_000_000), BOTTLENECK),
    ),
    gate=1e-5,
    parity=(PARITY, dataclasses.replace(PARITY, batch=64, float32=4.2e-6)),
    is_batch_invariant=True,
    latency=(
        evidence.Latency("ONNX Runtime", 1, 30, 0.0247, 0.0221),
        evidence.Latency("PyTorch eager", 1, 30, 0.0494, 0.0402),
    ),
    machine="a processor, 2 cores",
    notes=("odd is not among the goldens.",),
)
AGREEMENT = evidence.Agreement(128, "images of photos", 0.9921875, 4.2e-2, 3e-3, 256)
VARIANT = dataclasses.replace(
    FOUND,
    identity=dataclasses.replace(FOUND.identity, precision="int8"),
    parity=(),
    agreement=AGREEMENT,
    gate=0.5,
)


class Reader(html.parser.HTMLParser):
    """Collects the words of a page, its tags and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in {"src", "href"}]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def words(found: evidence.Evidence) -> str:
    """What a reader sees, without the breaks of lines."""
    text = re.sub(r"<style>.*</style>", "", report.page(found, {}), flags=re.DOTALL)
    return " ".join(" ".join(read(text).words).split())


def png() -> bytes:
    return charts.cost_bars(FOUND.costs)


def test_the_page_needs_nothing_from_outside() -> None:
    page = report.page(FOUND, {"costs": png(), "filters": png()})
    reader = read(page)
    assert len(reader.targets) == 2
    assert all(target.startswith("data:image/png;base64,") for target in reader.targets)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert "@import" not in page
    assert "url(" not in page


def test_every_figure_is_on_the_page() -> None:
    page = words(FOUND)
    for figure in (
        *(
            "digits",
            "version 3",
            "lenet5",
            "weights.pth",
            "a1" * 32,
            "b2" * 32,
            "249,508",
            "torch 2.13.0",
            "onnx 1.23.2",
        ),
        *("batch x 32 x 32 x 1", "265,958", "685,942,912", "3,948,587,136", "246,848", "38,656", "83 %"),
        *("front", "8 → 10", "nothing to do", "1, 64", "4.2e-6", "1.3e-6", "equal", "a processor, 2 cores"),
        *("24.7 ms", "49.4 ms", "2.00", "odd is not among the goldens.", "to the bit"),
    ):
        assert figure in page, figure


def test_what_a_user_named_is_text_and_never_markup() -> None:
    hostile = '<script>alert("1")</script>'
    found = dataclasses.replace(FOUND, notes=(hostile,), identity=dataclasses.replace(FOUND.identity, name=hostile))
    page = report.page(found, {hostile: png()})
    assert "script" not in read(page).tags
    assert html.escape(hostile, quote=False).replace('"', "&#34;") in page


@pytest.mark.parametrize(
    ("parity", "is_good"),
    [
        (PARITY, True),
        (dataclasses.replace(PARITY, float32=1e-5), True),
        (dataclasses.replace(PARITY, float32=1.1e-5), False),
        (dataclasses.replace(PARITY, float64=1.1e-5), False),
        (dataclasses.replace(PARITY, float32=float("inf")), False),
        (dataclasses.replace(PARITY, same_top1=False), False),
        (dataclasses.replace(PARITY, same_top1=None, float64=None), True),
    ],
)
def test_the_verdict_is_that_of_the_worst_comparison(parity: evidence.Parity, is_good: bool) -> None:
    found = dataclasses.replace(FOUND, parity=(PARITY, parity, PARITY))
    assert report.verdict(found).is_good is is_good
    assert ('class="verdict bad"' in report.page(found, {})) is not is_good


def test_a_variant_is_judged_by_its_agreement_with_fp32() -> None:
    page = words(VARIANT)
    assert "off by at most 4.2e-2 from fp32, best class equal in 99.2%" in page
    assert "256 images" in page
    far = dataclasses.replace(VARIANT, agreement=dataclasses.replace(AGREEMENT, worst=0.6))
    assert not report.verdict(far).is_good


def test_what_was_compared_with_nothing_is_not_verified() -> None:
    assert not report.verdict(dataclasses.replace(FOUND, parity=())).is_good


def test_what_is_not_known_is_said_or_left_out() -> None:
    bare = dataclasses.replace(
        FOUND,
        latency=(),
        is_batch_invariant=None,
        notes=(),
        outputs=(evidence.Tensor("count", "int64", ()),),
        costs=dataclasses.replace(FOUND.costs, stages=FOUND.costs.stages[:1], uncounted=("mix",)),
    )
    page = words(bare)
    assert "not batched" in page
    assert "How fast" not in page
    assert "one number" in page
    assert "Not in these figures: mix" in page


def test_comparisons_are_the_worst_of_their_batches() -> None:
    (row,) = report.comparisons(FOUND.parity)
    assert (row.batches, row.float32, row.float64, row.same_top1) == ((1, 64), 4.2e-6, 1.3e-6, True)


def test_what_was_fused_is_a_sentence() -> None:
    assert report.fused(FOUND.operators) == (
        "On the CPU, ONNX Runtime runs 5 nodes for these 8; fused or folded: 4 Relu; added: 1 ReorderOutput."
    )


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (2.14e-6, "2.1e-6"), (0.5, "5.0e-1"), (12.0, "1.2e1"), (float("inf"), "inf")]
)
def test_distances_are_short(value: float, words: str) -> None:
    assert report.distance(value) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (84, "84"), (156, "156"), (61_706, "61.7 k"), (1_498_376_192, "1.50 G"), (11_513_626_624, "11.5 G")],
)
def test_counts_have_three_digits(count: int, words: str) -> None:
    assert charts.short(count) == words


def test_an_export_writes_its_page(exported: conftest.Exported) -> None:
    page = (exported.repository / "lenet5/1/evidence/report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Verified" in page
    assert page.count("data:image/png") == 5
