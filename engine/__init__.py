"""From a loss to a trained net: optimizer, metrics, evaluation, reports, session."""
