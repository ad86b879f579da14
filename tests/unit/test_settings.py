"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SettingsError
from cron_observer.settings import Settings, SourceSettings, declared, load, redacted

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def written(folder: Path, text: str) -> Path:
    path = folder / "cron-observer.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(flags: dict[str, Any], environ: dict[str, str], path: Path | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ, path)
    return caught.value


def test_without_anything_there_are_the_defaults() -> None:
    """Nothing has to be set."""
    settings = load({}, {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.retention_days) == ("127.0.0.1", 8475, 90)
    assert settings.origins == {}


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    """Each layer overrides the next, setting by setting, and says so."""
    path = written(tmp_path, 'port = 1001\nhost = "::1"\nretention_days = 30\n')
    environ = {"CRON_OBSERVER_PORT": "1002", "CRON_OBSERVER_HOST": "192.0.2.7"}
    settings = load({"port": 1003, "log_format": None}, environ, path)
    assert (settings.port, settings.host, settings.retention_days) == (1003, "192.0.2.7", 30)
    assert settings.origins == {
        "port": "flag --port",
        "host": "environment CRON_OBSERVER_HOST",
        "retention_days": str(path),
    }


def test_the_environment_reads_every_kind(tmp_path: Path) -> None:
    """Numbers, lists and paths are read from text."""
    environ = {
        "CRON_OBSERVER_POOL_SIZE_API": "16",
        "CRON_OBSERVER_ALLOWED_HOSTS": "a.example, b.example",
        "CRON_OBSERVER_DATA_DIR": str(tmp_path),
        "CRON_OBSERVER_BASE_URL": "https://cron.example.org/",
    }
    settings = load({}, environ)
    assert settings.pool_size_api == 16
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.data_dir == tmp_path
    assert settings.base_url == "https://cron.example.org"


@pytest.mark.parametrize(
    ("flags", "environ", "said", "hint"),
    [
        ({}, {"CRON_OBSERVER_PROT": "1"}, "CRON_OBSERVER_PROT", "did you mean CRON_OBSERVER_PORT?"),
        ({}, {"CRON_OBSERVER_SOURCES": "x"}, "CRON_OBSERVER_SOURCES", "cron-observer.toml"),
        ({}, {"CRON_OBSERVER_port": "1"}, "CRON_OBSERVER_port", "did you mean"),
        ({"prot": 1}, {}, "prot", "did you mean port?"),
    ],
)
def test_what_we_do_not_know_is_an_error(flags: dict[str, Any], environ: dict[str, str], said: str, hint: str) -> None:
    """An unknown flag or variable is refused by name, with what was probably meant."""
    error = refusal(flags, environ)
    assert said in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    "name",
    ["URL", "TOKEN", "PG_BIN", "PYTHON", "TEST_DATABASE_URL", "EXECUTION_ID", "GIT_PASSWORD"],
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    """The SDK's, the launcher's and the tests' variables are no errors."""
    assert load({}, {f"CRON_OBSERVER_{name}": "x", "OTHER": "y"}) == Settings()


def test_an_unknown_key_of_the_file_is_an_error(tmp_path: Path) -> None:
    """A key that we do not know is refused with file and suggestion."""
    path = written(tmp_path, "retention_day = 3\n")
    error = refusal({}, {}, path)
    assert error.message == f"{path}: unknown setting retention_day"
    assert error.hint == "did you mean retention_days?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65_536),
        ("port", "80a"),
        ("port", True),
        ("port", 80.5),
        ("retention_days", 6),
        ("log_format", "xml"),
        ("log_level", ""),
        ("database_url", "mysql://h/d"),
        ("database_url", "nonsense"),
        ("base_url", "cron.example.org"),
        ("allowed_hosts", 5),
        ("tenant", "Has Spaces"),
        ("host", " "),
        ("pool_size_api", 1),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: Any) -> None:
    """A wrong value names its setting and its origin, and the hint says what it means."""
    error = refusal({name: value}, {})
    assert error.message.startswith(f"flag --{name.replace('_', '-')}: {name} must ")
    assert error.hint == declared(Settings)[name].doc


@pytest.mark.parametrize(
    "text", ["port = ", "port = 1\nport = 2\n", "sources = 5\n", '[sources]\nname = "x"\n', "sources = [1]\n"]
)
def test_a_broken_file_is_an_error(tmp_path: Path, text: str) -> None:
    """A file that cannot be understood is refused by name."""
    path = written(tmp_path, text)
    assert str(path) in refusal({}, {}, path).message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    assert "No such file" in refusal({}, {}, tmp_path / "none.toml").message


def test_sources(tmp_path: Path) -> None:
    """Each [[sources]] is a source; local ones are looked at every second, others every thirty."""
    path = written(
        tmp_path,
        """
        project = "payments"
        [[sources]]
        name = "main"
        url = "manifests"
        paths = ["tasks"]
        [[sources]]
        name = "forge"
        url = "git@forge.example:team/manifests.git"
        ref = "main"
        ignore = ["*.draft.yaml"]
        environment = "staging"
        project = "other"
        [[sources]]
        name = "slow"
        url = "file:///srv/manifests"
        poll_seconds = 300
        """,
    )
    main, forge, slow = load({}, {}, path).sources
    assert main == SourceSettings(
        name="main", url=str(tmp_path / "manifests"), paths=("tasks",), project="payments", poll_seconds=1.0
    )
    assert (forge.url, forge.poll_seconds, forge.project) == ("git@forge.example:team/manifests.git", 30.0, "other")
    assert (forge.ref, forge.ignore, forge.environment) == ("main", ("*.draft.yaml",), "staging")
    assert (slow.url, slow.poll_seconds) == ("file:///srv/manifests", 300.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "main"', "sources[0].url is missing"),
        ('url = "x"', "sources[0].name is missing"),
        ('name = "main"\nurl = "x"\nbranch = "y"', "unknown key sources[0].branch"),
        ('name = "main"\nurl = "x"\nflavour = "github"', "unknown key sources[0].flavour"),
        ('name = "main"\nurl = "x"\npoll_seconds = 0', "sources[0].poll_seconds must be"),
        ('name = "main"\nurl = "x"\n[[sources]]\nname = "main"\nurl = "y"', "two sources are called main"),
    ],
)
def test_wrong_sources_are_refused(tmp_path: Path, table: str, said: str) -> None:
    """A source that is wrong is named by its place."""
    path = written(tmp_path, f"[[sources]]\n{table}\n")
    assert said in refusal({}, {}, path).message


def test_a_flag_replaces_the_sources_of_the_file(tmp_path: Path) -> None:
    """Sources given on the command line are the only ones; a relative path counts from where one is."""
    path = written(tmp_path, '[[sources]]\nname = "main"\nurl = "x"\n')
    settings = load({"sources": [{"name": "mine", "url": "here"}]}, {}, path)
    assert [(source.name, source.url) for source in settings.sources] == [("mine", "here")]
    assert settings.origins["sources[0].url"] == "flag"


def test_a_relative_data_dir_counts_from_the_file(tmp_path: Path) -> None:
    """The file means the same wherever the command is called."""
    path = written(tmp_path, 'data_dir = "data"\n')
    assert load({}, {}, path).data_dir == tmp_path / "data"


def test_relative_files_of_a_source_count_from_the_file(tmp_path: Path) -> None:
    """Keys lie beside the settings that name them; Git, which reads them, is run in another folder."""
    text = '[[sources]]\nname = "a"\nurl = "https://git.example.org/a.git"\nca_file = "keys/ca.pem"\nverify = "head"\n'
    text += 'allowed_signers = "signers"\ngpg_keys = "/etc/keys.asc"\n'
    (source,) = load({}, {}, written(tmp_path, text)).sources
    assert (source.ca_file, source.allowed_signers) == (tmp_path / "keys/ca.pem", tmp_path / "signers")
    assert source.gpg_keys == Path("/etc/keys.asc")


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ('allowed_signers = "/etc/signers"', "verify"),
        ('gpg_keys = "/etc/keys.asc"', "verify"),
        ('committers = ["ada@example.org"]', "verify"),
        ('verify = "none"\ncommitters = ["ada@example.org"]', "verify"),
        ('secret_ref = ["env:HOOK"]', "provider"),
        ('status_ref = "env:TOKEN"', "provider"),
        ('forge_url = "https://git.example.org"', "provider"),
    ],
)
def test_a_setting_without_the_one_that_gives_it_an_effect_is_refused(tmp_path: Path, line: str, needed: str) -> None:
    """Whoever names keys and forgets to ask for signatures would believe that they are verified."""
    text = f'[[sources]]\nname = "a"\nurl = "https://git.example.org/a.git"\n{line}\n'
    error = refusal({}, {}, written(tmp_path, text))
    assert f"has no effect without {needed}" in error.message
    assert needed in str(error.hint)


def test_each_role_may_have_a_database_url() -> None:
    """A role's own URL wins over the common one; any spelling of the scheme is understood."""
    settings = load({"database_url": "postgres://h/d", "database_url_api": "postgresql://api@h/d"}, {})
    assert settings.database_of("api") == "postgresql+psycopg://api@h/d"
    assert settings.database_of("scheduler") == "postgresql+psycopg://h/d"
    assert load({}, {}).database_of("api") is None


def test_secrets_are_not_shown() -> None:
    """Neither the listing nor the representation gives a password away."""
    settings = load(
        {
            "database_url": "postgresql://app:hunter22@h/d?sslpassword=hunter22",
            "sources": [{"name": "main", "url": "https://hunter22@forge.example/x.git"}],
        },
        {},
    )
    assert "hunter22" not in repr(settings)
    assert "hunter22" not in str(settings.shown())
    rows = {name: (value, origin) for name, value, origin in settings.shown()}
    assert rows["database_url"] == ("postgresql+psycopg://app:***@h/d?sslpassword=***", "flag --database-url")
    assert rows["port"] == ("8475", "default")
    assert rows["sources[0].url"] == ("https://***@forge.example/x.git", "flag")


@pytest.mark.parametrize("url", ["postgresql://h/d", "git@forge.example:x.git", "/srv/manifests", "https://h/x@y"])
def test_what_is_no_secret_stays(url: str) -> None:
    """A URL without a secret is shown as it is."""
    assert redacted(url) == url


def test_the_reference_lists_every_setting() -> None:
    """docs/reference/settings.md says of every setting exactly what the code says."""
    text = re.sub(r"\s+", " ", DOCS.read_text(encoding="utf-8"))
    for kind in (Settings, SourceSettings):
        for name, setting in declared(kind).items():
            assert f"`{name}`" in text
            assert setting.doc in text, name
