"""Where a deployment is and with which key: given as arguments, in a URL, in the environment."""

from __future__ import annotations

from typing import Any

import pytest
from mastra_storage_convex import ConvexBackend, ConvexStorage
from mastra_storage_convex.client import Settings
from mastra_storage_convex.options import settings_of
from mastra_storage_convex.verifying import settings_for

from mastra_storage import InvalidArgumentError, open_storage

CLOUD = "https://cheerful-lemur-123.convex.cloud"
LOCAL = "http://127.0.0.1:3210"
NAMES = (
    "CONVEX_URL",
    "CONVEX_DEPLOY_KEY",
    "CONVEX_SELF_HOSTED_URL",
    "CONVEX_SELF_HOSTED_ADMIN_KEY",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of Convex; tests add to it."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def found(url: str, **options: Any) -> tuple[str, str]:
    """The address and the key of the backend for a URL."""
    settings = ConvexBackend.from_url(url, **options)._settings
    return settings.url, settings.key


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("convex://cheerful-lemur-123.convex.cloud", CLOUD),
            ("convex://cheerful-lemur-123.convex.cloud/", CLOUD),
            ("convex+http://127.0.0.1:3210", LOCAL),
            ("convex://example.com:8443/convex/", "https://example.com:8443/convex"),
        ],
    )
    def test_say_where_the_deployment_is(self, url: str, address: str) -> None:
        assert found(url, deploy_key="k") == (address, "k")

    def test_carry_options_which_keywords_override(self) -> None:
        url = "convex+http://127.0.0.1:3210?deploy_key=dev%7Ck&timeout=2.5"
        backend = ConvexBackend.from_url(url)
        assert backend._settings == Settings(url=LOCAL, key="dev|k", timeout=2.5)
        assert found(url, deploy_key="other") == (LOCAL, "other")

    @pytest.mark.parametrize(
        "url",
        [
            "convex+http://",
            "convex://host#part",
            "convex://user:password@host",
            "convex://host:port",
            "convex://cheerful-lemur-123.convex.site",
        ],
    )
    def test_that_cannot_be_are_refused_when_named(self, url: str) -> None:
        with pytest.raises(InvalidArgumentError, match="convex"):
            open_storage(url, deploy_key="k")

    @pytest.mark.parametrize(
        ("url", "right"),
        [
            ("convex://https://host", "^convex: convex:// takes the place of https://"),
            ("convex+http://https://host", "^convex: convex:// takes the place of https://"),
            (
                "convex://http://127.0.0.1:3210",
                r"^convex: convex\+http:// takes the place of http://",
            ),
        ],
    )
    def test_with_two_schemes_get_the_right_form(self, url: str, right: str) -> None:
        with pytest.raises(InvalidArgumentError, match=right):
            open_storage(url, deploy_key="k")

    def test_of_http_actions_are_told_apart(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"ends in \.convex\.cloud"):
            ConvexStorage("https://cheerful-lemur-123.convex.site", "k")

    @pytest.mark.parametrize(
        "url", ["cheerful-lemur-123.convex.cloud", "convex://host", "ftp://host", "", 5]
    )
    def test_of_a_storage_are_http_addresses(self, url: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="convex_url"):
            ConvexStorage(url, "k")

    def test_with_other_options_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="no option 'key'"):
            open_storage("convex://host?key=k")


class TestEnvironment:
    def test_gives_what_is_not_given(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_URL", CLOUD + "/")
        environment.setenv("CONVEX_DEPLOY_KEY", "k")
        assert settings_of(None, None) == Settings(url=CLOUD, key="k")
        assert settings_of(None, "mine") == Settings(url=CLOUD, key="mine")
        assert found("convex://") == (CLOUD, "k")
        assert found("convex://cheerful-lemur-123.convex.cloud") == (CLOUD, "k")
        assert ConvexStorage().backend.name == "convex"

    def test_has_a_pair_for_self_hosted_deployments(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_SELF_HOSTED_URL", LOCAL)
        environment.setenv("CONVEX_SELF_HOSTED_ADMIN_KEY", "admin")
        assert settings_of(None, None) == Settings(url=LOCAL, key="admin")
        assert found("convex+http://127.0.0.1:3210") == (LOCAL, "admin")

    def test_keeps_pairs_together(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_URL", CLOUD)
        environment.setenv("CONVEX_DEPLOY_KEY", "k")
        environment.setenv("CONVEX_SELF_HOSTED_URL", LOCAL)
        environment.setenv("CONVEX_SELF_HOSTED_ADMIN_KEY", "admin")
        assert settings_of(None, None).key == "k"
        assert settings_of(CLOUD, None).key == "k"
        assert settings_of(LOCAL, None).key == "admin"
        environment.delenv("CONVEX_URL")
        environment.delenv("CONVEX_DEPLOY_KEY")
        environment.setenv("CONVEX_URL", CLOUD)
        assert settings_of(None, None) == Settings(url=LOCAL, key="admin")

    def test_gives_no_key_to_another_address(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_URL", CLOUD)
        environment.setenv("CONVEX_DEPLOY_KEY", "secret")
        with pytest.raises(InvalidArgumentError, match="another address") as caught:
            settings_of("https://other-lemur-1.convex.cloud", None)
        assert "secret" not in str(caught.value)

    def test_may_have_a_key_alone(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_DEPLOY_KEY", "k")
        assert settings_of(CLOUD, None) == Settings(url=CLOUD, key="k")
        expected = (
            "^convex: CONVEX_DEPLOY_KEY is set, CONVEX_URL is missing or empty; give convex_url and"
        )
        with pytest.raises(InvalidArgumentError, match=expected):
            settings_of(None, None)

    def test_with_nothing_in_it_is_explained(self) -> None:
        expected = (
            "^convex: the key is missing; give deploy_key, or set CONVEX_URL and CONVEX_DEPLOY_KEY"
        )
        with pytest.raises(InvalidArgumentError, match=expected):
            open_storage("convex://cheerful-lemur-123.convex.cloud")
        with pytest.raises(
            InvalidArgumentError, match=r"^convex: the URL and the key are missing; give"
        ):
            ConvexStorage()
        with pytest.raises(
            InvalidArgumentError, match=r"^convex: the URL is missing; give convex_url, or"
        ):
            ConvexStorage(deploy_key="k")

    @pytest.mark.parametrize("key", ["", None])
    def test_says_which_half_of_a_pair_is_there(
        self, environment: pytest.MonkeyPatch, key: str | None
    ) -> None:
        environment.setenv("CONVEX_URL", CLOUD)
        if key is not None:
            environment.setenv("CONVEX_DEPLOY_KEY", key)
        expected = "^convex: CONVEX_URL is set, CONVEX_DEPLOY_KEY is missing or empty; give"
        for url in (None, CLOUD, LOCAL):
            with pytest.raises(InvalidArgumentError, match=expected):
                settings_of(url, None)

    def test_with_halves_of_two_pairs_says_that_they_do_not_match(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("CONVEX_URL", CLOUD)
        environment.setenv("CONVEX_SELF_HOSTED_ADMIN_KEY", "secret")
        with pytest.raises(InvalidArgumentError) as caught:
            settings_of(None, None)
        assert str(caught.value).startswith(
            "convex: CONVEX_URL is set, CONVEX_DEPLOY_KEY is missing or empty; "
            "CONVEX_SELF_HOSTED_ADMIN_KEY is set, CONVEX_SELF_HOSTED_URL is missing or empty; "
            "the key of one pair does not go with the URL of the other; give convex_url and "
        )
        assert "secret" not in str(caught.value)

    def test_with_a_bad_address_names_the_variable(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CONVEX_URL", "lemur")
        environment.setenv("CONVEX_DEPLOY_KEY", "k")
        with pytest.raises(InvalidArgumentError, match="CONVEX_URL must be"):
            settings_of(None, None)


class TestKeys:
    @pytest.mark.parametrize("key", ["", "two words", "k\n", "clé", 5])
    def test_that_cannot_be_are_refused(self, key: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="key"):
            settings_of(CLOUD, key)

    @pytest.mark.parametrize("key", ["'dev:k|1'", '"dev:k|1"', "dev:k|1'"])
    def test_with_their_quotes_are_told_apart(
        self, environment: pytest.MonkeyPatch, key: str
    ) -> None:
        environment.setenv("CONVEX_DEPLOY_KEY", key)
        expected = "CONVEX_DEPLOY_KEY begins or ends with a quotation mark"
        with pytest.raises(InvalidArgumentError, match=expected) as caught:
            settings_of(CLOUD, None)
        assert "dev:k" not in str(caught.value)

    def test_are_not_shown(self) -> None:
        settings = settings_of(CLOUD, "secret-key")
        backend = ConvexBackend(settings)
        storage = ConvexStorage(CLOUD, "secret-key")
        for shown in (settings, backend, storage, storage.backend, vars(backend)):
            assert "secret-key" not in repr(shown)


@pytest.mark.parametrize("timeout", ["x", 0, "-1", None, float("nan"), float("inf")])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout"):
        ConvexStorage(CLOUD, "k", timeout=timeout)


@pytest.mark.parametrize("url", ["convex://[bad", "CONVEX+HTTP://[::1", "https://[bad", "[bad"])
def test_what_has_no_host_is_refused_wherever_it_is_given(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="like"):
        settings_for(url, "key")
    if "convex" in url.lower():
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            open_storage(url, deploy_key="key")
