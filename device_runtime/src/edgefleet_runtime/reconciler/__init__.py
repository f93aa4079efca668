"""The reconciler: from the release that is wanted to the release that serves, step by step."""
