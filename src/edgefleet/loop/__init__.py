"""The loop: drift seen, a model trained again, compared, tried as a shadow, promoted."""
