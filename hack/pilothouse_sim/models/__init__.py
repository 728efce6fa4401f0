"""A stand-in for a model server: OpenAI chat completions and Anthropic messages; README.md says what it plans."""
