"""Every error has its place in the table, and unexpected ones hide."""

import grpc
import pytest

from service import errors
from service.wire import status


def walk(kind: type[errors.FoveaError]) -> list[type[errors.FoveaError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in walk(child))]


@pytest.mark.parametrize("kind", walk(errors.FoveaError)[1:])
def test_every_error_is_mapped_by_itself_or_a_base_below_the_root(kind: type[errors.FoveaError]) -> None:
    error = kind.__new__(kind)
    assert status.code(error) is not grpc.StatusCode.UNKNOWN


def test_unexpected_errors_hide_what_they_say_behind_a_number_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    code, sentence = status.explain(KeyError("secret"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in sentence
    assert sentence.split(";")[0] in caplog.text
    assert "secret" in caplog.text
