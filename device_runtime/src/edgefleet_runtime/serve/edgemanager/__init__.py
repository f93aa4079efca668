"""SageMaker Edge Manager's agent API over the same models; needs the extra ``[grpc]``."""
