"""What Triton's clients use beyond Open Inference Protocol v2, over REST and gRPC alike."""
