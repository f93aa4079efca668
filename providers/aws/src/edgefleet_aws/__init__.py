"""AWS behind EdgeFleet's interfaces: S3 and SageMaker."""
