"""Google Cloud as a provider: Cloud Storage and Pub/Sub."""
