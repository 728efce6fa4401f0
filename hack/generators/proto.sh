#!/usr/bin/env bash
# Generates the protobuf and gRPC code (and its stubs) beside the .proto files.
set -euo pipefail
cd "$(dirname "$0")/../.."
find proto -name '*_pb2*' -delete
.venv/bin/python -m grpc_tools.protoc -I proto \
  --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=.venv/bin/protoc-gen-mypy_grpc \
  --python_out=proto --grpc_python_out=proto --mypy_out=quiet:proto --mypy_grpc_out=quiet:proto \
  $(cd proto && find pilothouse_proto -name '*.proto' | sort)
