"""gRPC: servicers, rendering, interceptors, status mapping, the hub of event streams."""
