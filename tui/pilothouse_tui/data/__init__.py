"""Clients of the Kubernetes API, Fleet and the chat WebSocket. Nothing here knows Textual."""
