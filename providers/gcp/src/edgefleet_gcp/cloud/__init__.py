"""The mock of Google Cloud: Cloud Storage, Pub/Sub, and who may call them."""
