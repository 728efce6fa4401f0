"""The local node: a small agent that runs Kubernetes Pods as local processes, for clusters without a container engine.

Pure modules (no IO, no clock): `model`, `environment`, `projection`, `probes`, `restarts`, `status`, `routing`. IO
modules: `api`, `atomic`, `processes`, `launcher` (runs in the child), `logs`, `probing`, `container`, `pod`,
`nodeport`, `server`, `registration`, `agent`."""
