"""Settings: one object, several sources, no unknown name."""

import pathlib

import pytest

from service import errors, settings


def test_flags_win_over_environment_over_file_over_default(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text("grpc_port = 1\nmetrics_port = 2\nthreads = 3\n")
    environment = {"FOVEA_CONFIG": str(file), "FOVEA_METRICS_PORT": "20", "FOVEA_THREADS": "30", "HOME": "/"}
    chosen = settings.load({"threads": 300}, environment)
    assert (chosen.grpc_port, chosen.metrics_port, chosen.threads, chosen.host) == (1, 20, 300, "127.0.0.1")


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    with pytest.raises(errors.SettingsError, match=r"FOVEA_GRPC_PROT is not a setting.*'FOVEA_GRPC_PORT'"):
        settings.load({}, {"FOVEA_GRPC_PROT": "1"})


def test_an_unknown_key_in_the_file_names_the_nearest_known_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text("devise = 'cpu'\n")
    with pytest.raises(errors.SettingsError, match=r"'devise' in .* is not a setting.*'device'"):
        settings.load({"config": file}, {})


@pytest.mark.parametrize(
    ("flags", "environment", "sentence"),
    [
        ({"grpc_port": 70_000}, {}, r"--grpc-port is 70000: .*65535"),
        ({}, {"FOVEA_DEVICE": "tpu"}, r"FOVEA_DEVICE is 'tpu': .*'auto', 'cuda' or 'cpu'"),
    ],
)
def test_a_bad_value_names_its_source(flags: dict[str, int], environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(errors.SettingsError, match=sentence):
        settings.load(flags, environment)


def test_models_to_load_are_a_list_or_separated_by_commas() -> None:
    explicit = {"model_control_mode": "explicit"}
    assert settings.load({**explicit, "load_model": ["a", "b"]}, {}).load_model == ("a", "b")
    assert settings.load(explicit, {"FOVEA_LOAD_MODEL": "a, b"}).load_model == ("a", "b")
    with pytest.raises(errors.SettingsError, match="--load-model is given, but --model-control-mode is none"):
        settings.load({"load_model": ["a"]}, {})


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(errors.SettingsError, match="cannot be read"):
        settings.load({}, {"FOVEA_CONFIG": "/nowhere/fovea.toml"})


def test_settings_that_cannot_go_together_are_told_so() -> None:
    for flags, sentence in (
        ({"tls_key": "k"}, "--tls-key is given without --tls-certificate"),
        ({"tls_client_ca": "c"}, "--tls-client-ca is given, but client certificates need TLS"),
        ({"tokens": "t", "allow_remote_control": True}, "--allow-remote-control is given with --tokens"),
    ):
        with pytest.raises(errors.SettingsError, match=sentence):
            settings.load(flags, {})


def test_variables_of_the_client_may_stand_beside_the_server_s() -> None:
    assert settings.load({}, {"FOVEA_CLIENT_TOKEN": "x", "FOVEA_TLS_KEY": "k", "FOVEA_TLS_CERTIFICATE": "c"}).tls_key
