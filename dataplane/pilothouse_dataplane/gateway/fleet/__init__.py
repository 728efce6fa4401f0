"""The live view for SREs: events folded into sessions, breakers and costs, and streamed over gRPC."""
