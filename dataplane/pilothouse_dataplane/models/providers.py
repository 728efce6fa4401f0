"""Makes the providers of a route. A protocol's module is imported when a route names it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from pilothouse_api.workerconfig import ProviderConfig, TargetConfig
from pilothouse_dataplane.core.messages import ModelRequest
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelEvent,
    ModelProvider,
    ModelTimeouts,
    ProviderConfigError,
)


def api_key(provider: str, raw: bytes) -> str:
    """The key of a Secret, fit for a header. Raises ProviderConfigError, whose sentence holds nothing of the key."""
    wrong = ""
    try:
        key = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        key, wrong = "", "holds characters that no key has"
    if not wrong and not key:
        wrong = "is empty"
    elif "\n" in key or "\r" in key:
        wrong = "holds a line break in its middle"
    elif not all("!" <= sign <= "~" for sign in key):
        wrong = "holds blanks or control characters"
    if wrong:
        raise ProviderConfigError(
            f"The API key of the model provider {provider} {wrong}, so the provider is not asked; a platform operator "
            "must write the key into its Secret again, as one line"
        )
    return key


def make_provider(config: ProviderConfig, files: Mapping[str, bytes]) -> ModelProvider:
    """A provider of that configuration; ``files`` are the worker's, by name. Raises ProviderConfigError."""
    key = None
    if config.api_key_file:
        if config.api_key_file not in files:
            raise ProviderConfigError(
                f"The API key of the model provider {config.name} is missing, so the provider is not asked; a platform "
                "operator must add it to the ModelRoute's Secret"
            )
        key = api_key(config.name, files[config.api_key_file])
    timeouts = ModelTimeouts(
        connect=config.timeouts.connect,
        first_token=config.timeouts.first_token,
        between_tokens=config.timeouts.between_tokens,
        whole=config.timeouts.whole,
    )
    if config.type == "Anthropic":
        from pilothouse_dataplane.models.anthropic import AnthropicProvider

        return AnthropicProvider(config.name, config.base_url, key, timeouts)
    if config.protocol == "Responses":
        from pilothouse_dataplane.models.responses import ResponsesProvider

        return ResponsesProvider(config.name, config.base_url, key, timeouts)
    from pilothouse_dataplane.models.openai import OpenAIProvider

    return OpenAIProvider(config.name, config.base_url, key, timeouts)


class MisconfiguredProvider:
    """Stands in a route for a provider that can't be made: the route's other targets go on."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        """A sentence for operators."""

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        raise ModelDenied(self.problem)
        yield

    async def aclose(self) -> None:
        """Nothing is open."""


def make_providers(
    configs: tuple[ProviderConfig, ...], files: Mapping[str, bytes]
) -> tuple[dict[str, ModelProvider], tuple[str, ...]]:
    """The providers of a route by name, and what is wrong with those that can't be made: each then denies its calls."""
    made: dict[str, ModelProvider] = {}
    problems: list[str] = []
    for config in configs:
        try:
            made[config.name] = make_provider(config, files)
        except ProviderConfigError as error:
            problems.append(str(error))
            made[config.name] = MisconfiguredProvider(str(error))
    return made, tuple(problems)
