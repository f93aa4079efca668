"""The same models over gRPC. Needs the extra ``edgefleet-runtime[grpc]``, and nobody else does."""
