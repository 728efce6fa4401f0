"""All input and output: the Kubernetes API, the workers, the queue and its loop."""
